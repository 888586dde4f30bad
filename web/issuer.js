// What is said to whoever issues tokens: OpenID Connect's authorization code flow with PKCE, without a library.
// https://www.rfc-editor.org/rfc/rfc7636 and https://openid.net/specs/openid-connect-core-1_0.html

/** Why nobody was signed in, as a sentence that may be shown. */
export class SignInError extends Error {}

/** The issuer said no, and would again. */
export class Refused extends SignInError {}

export class Issuer {
  #settings;
  #found = null;

  /** @param {{issuer: string, client_id: string, scopes?: string, token_origin?: string}} settings */
  constructor(settings) {
    this.#settings = settings;
  }

  get name() {
    return new URL(this.#settings.issuer).host;
  }

  /** Its discovery document. */
  async discover() {
    const { issuer, token_origin: tokenOrigin } = this.#settings;
    this.#found ??= await this.#json(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`);
    const { authorization_endpoint: page, token_endpoint: tokens } = this.#found;
    const isSafe = (address) => URL.canParse(address) && new URL(address).protocol === new URL(issuer).protocol;
    if (this.#found.issuer !== issuer || !isSafe(page) || !isSafe(tokens)) {
      this.#found = null;
      throw new SignInError(`What ${this.name} publishes is not the document of this issuer.`);
    }
    const { origin } = new URL(tokens);
    if (![new URL(issuer).origin, tokenOrigin].includes(origin)) {
      throw new SignInError(`This page may not ask ${origin} for tokens. Whoever runs it must set PageTokenOrigin.`);
    }
    return this.#found;
  }

  /** The address of its own page, where one signs in. */
  async pageFor({ state, nonce, verifier }, back) {
    const { authorization_endpoint: page } = await this.discover();
    const address = new URL(page);
    const asked = {
      response_type: "code",
      client_id: this.#settings.client_id,
      redirect_uri: back,
      scope: this.#settings.scopes || "openid",
      state,
      nonce,
      code_challenge: await challengeOf(verifier),
      code_challenge_method: "S256",
    };
    for (const [name, value] of Object.entries(asked)) address.searchParams.set(name, value);
    return address.href;
  }

  /** Tokens for what the issuer's page sent back. */
  async exchange(answer, { state, nonce, verifier }, back) {
    if (!state || answer.get("state") !== state) {
      throw new Refused("That was not the answer to a sign-in that began in this window.");
    }
    if (answer.has("iss") && answer.get("iss") !== this.#settings.issuer) throw new Refused("Another issuer answered.");
    if (answer.has("error")) {
      throw new Refused(`${this.name} refused: ${answer.get("error_description") || answer.get("error")}.`);
    }
    const asked = { grant_type: "authorization_code", code: answer.get("code"), redirect_uri: back, code_verifier: verifier };
    const given = await this.#tokens(asked);
    const isOpenId = (this.#settings.scopes || "openid").split(" ").includes("openid");
    if (isOpenId && claimsOf(given.id_token)?.nonce !== nonce) throw new Refused("The issuer's answer was for another sign-in.");
    return tokensOf(given);
  }

  async refresh(refreshToken) {
    return tokensOf(await this.#tokens({ grant_type: "refresh_token", refresh_token: refreshToken }), refreshToken);
  }

  /** The address that signs out there too, and comes back (https://openid.net/specs/openid-connect-rpinitiated-1_0.html). */
  endOf(address, back) {
    const asked = new URL(address);
    asked.searchParams.set("client_id", this.#settings.client_id);
    asked.searchParams.set("post_logout_redirect_uri", back);
    asked.searchParams.set("logout_uri", back); // Cognito's own word for it
    return asked.href;
  }

  async #tokens(asked) {
    const { token_endpoint: address } = await this.discover();
    const body = new URLSearchParams({ ...asked, client_id: this.#settings.client_id });
    const given = await this.#json(address, { method: "POST", body });
    if (typeof given.access_token !== "string") throw new SignInError(`${this.name} gave no access token.`);
    return given;
  }

  async #json(address, init = {}) {
    let response;
    try {
      response = await fetch(address, { ...init, cache: "no-store", credentials: "omit", redirect: "error" });
    } catch (error) {
      throw new SignInError(`${new URL(address).host} cannot be reached. Try again in a moment.`, { cause: error });
    }
    const body = await response.json().catch(() => null);
    if (response.ok && body) return body;
    const why = body?.error_description || body?.error || `it answered with ${response.status}`;
    const isRefusal = response.status === 400 || response.status === 401;
    throw new (isRefusal ? Refused : SignInError)(`${this.name} refused: ${why}.`);
  }
}

/** @returns {{token: string, refresh: string | null, expires: number | null}} */
function tokensOf({ access_token: token, refresh_token: given, expires_in: seconds }, before = null) {
  return { token, refresh: given ?? before, expires: seconds ? Date.now() + seconds * 1000 : expiryOf(token) };
}

/** When a token ends, in milliseconds; null where it does not say. */
export function expiryOf(token) {
  const { exp } = claimsOf(token) ?? {};
  return typeof exp === "number" ? exp * 1000 : null;
}

/** What a JSON Web Token says. Nobody trusts it for that: the API checks the signature. */
function claimsOf(token) {
  try {
    const bytes = Uint8Array.from(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")), (each) => each.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

export const secret = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

async function challengeOf(verifier) {
  return base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
}

const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
