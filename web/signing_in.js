// Who is asking: the token of each request, from the issuer's own page or pasted in. Every sign-in ends in a page that is
// loaded anew; what was typed is a draft by then, and the conversation is in the address.
//
// Tokens are in sessionStorage and not in localStorage: they end with the window, no other window finds them, and what is
// left on a shared machine signs nobody in.

import { forgetDrafts } from "./drafts.js";
import { Issuer, Refused, SignInError, expiryOf, secret } from "./issuer.js";
import { SignInDialog } from "./sign_in_dialog.js";
import { TailraceError } from "./tailrace.js";

const TOKENS = "tailrace.tokens";
const SIGN_IN = "tailrace.sign-in"; // one that was begun
const EARLY_MS = 30_000; // before its end a token is refreshed

/**
 * What this page is to know of its stack; nothing on a machine where nobody is asked. It lies in the document: a page that had to
 * fetch it could not take what is typed until it came.
 */
export const readSettings = () => JSON.parse(document.querySelector('meta[name="settings"]').content);

export class SigningIn {
  #issuer;
  #asks;
  #dialog;
  #tokens;
  #refreshing = null;

  /** @param {{auth?: string, issuer?: string, client_id?: string}} settings */
  constructor(settings) {
    this.#asks = settings.auth === "jwt";
    this.#issuer = settings.issuer && settings.client_id ? new Issuer(settings) : null;
    this.#tokens = read(TOKENS);
    this.#dialog = new SignInDialog(this.#issuer?.name ?? null, {
      leave: () => this.#leave(),
      paste: (token) => {
        write(TOKENS, { token, refresh: null, expires: expiryOf(token) });
        location.reload();
      },
    });
  }

  /** Return once somebody is signed in, or nobody has to be. */
  async begin() {
    if (!this.#asks) return;
    const answer = new URLSearchParams(location.search);
    try {
      if (this.#issuer && answer.has("state") && (answer.has("code") || answer.has("error"))) await this.#arrive(answer);
      await this.token();
    } catch (error) {
      this.#dialog.ask(error instanceof SignInError ? error.message : "");
      await new Promise(() => {}); // the next thing is another page
    }
    const leave = document.querySelector("#sign-out");
    leave.hidden = false;
    leave.addEventListener("click", () => void this.#signOut());
  }

  /** The access token, refreshed before it ends. */
  token = async () => {
    if (!this.#asks) return null;
    const left = (this.#tokens?.expires ?? Infinity) - Date.now();
    if (this.#tokens?.refresh && left < EARLY_MS) await this.#refresh(left > 0);
    else if (!this.#tokens || left <= 0) this.#ask();
    return this.#tokens.token;
  };

  /** Fetch something of the API. Whoever is turned away gets another token, or is asked to sign in again. */
  fetch = async (address, init = {}) => {
    const headers = new Headers(init.headers);
    if (this.#asks && !headers.has("Authorization")) headers.set("Authorization", `Bearer ${await this.token()}`);
    const response = await fetch(address, { ...init, headers });
    if (!this.#asks || response.status !== 401) return response;
    const isCurrent = headers.get("Authorization") === `Bearer ${this.#tokens?.token}`;
    if (this.#tokens?.refresh) {
      try {
        if (isCurrent) await this.#refresh(false);
      } catch (error) {
        if (!(error instanceof TailraceError)) throw error;
        return response; // and the dialog is there
      }
      headers.set("Authorization", `Bearer ${this.#tokens.token}`);
      const again = await fetch(address, { ...init, headers });
      if (again.status !== 401) return again;
    }
    this.#forget();
    this.#dialog.ask("You were signed out. What you typed is kept.");
    return response;
  };

  // ---- in ----

  async #leave() {
    const begun = { state: secret(), nonce: secret(), verifier: secret(), address: location.search + location.hash };
    const page = await this.#issuer.pageFor(begun, back());
    write(SIGN_IN, begun);
    location.assign(page);
  }

  async #arrive(answer) {
    const begun = read(SIGN_IN) ?? {};
    const isOurs = begun.state !== undefined && answer.get("state") === begun.state;
    // Whatever comes of it, the code is in no address any more, and is not tried twice.
    history.replaceState(null, "", location.pathname + (isOurs ? begun.address : ""));
    if (isOurs) sessionStorage.removeItem(SIGN_IN);
    this.#keep(await this.#issuer.exchange(answer, begun, back()));
  }

  // ---- meanwhile ----

  /** Once, however many ask. With a token that is still good an issuer that is out of reach is no harm. */
  async #refresh(isGood) {
    this.#refreshing ??= this.#issuer
      .refresh(this.#tokens.refresh)
      .then((tokens) => this.#keep(tokens))
      .finally(() => (this.#refreshing = null));
    try {
      await this.#refreshing;
    } catch (error) {
      if (error instanceof Refused) this.#ask();
      if (!isGood) throw error;
    }
  }

  #ask() {
    this.#forget();
    this.#dialog.ask();
    throw new TailraceError("You are not signed in.", { type: "unauthenticated", status: 401 });
  }

  #keep(tokens) {
    this.#tokens = tokens;
    write(TOKENS, tokens);
  }

  // ---- out ----

  #forget() {
    this.#tokens = null;
    sessionStorage.removeItem(TOKENS);
  }

  async #signOut() {
    this.#forget();
    forgetDrafts();
    history.replaceState(null, "", location.pathname + location.search);
    const { end_session_endpoint: end } = (await this.#issuer?.discover().catch(() => null)) ?? {};
    if (end) location.assign(this.#issuer.endOf(end, back()));
    else location.reload();
  }
}

/** Where the issuer sends people back to. It must be among those that the client has there. */
const back = () => `${location.origin}/`;

function read(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name));
  } catch {
    return null;
  }
}

const write = (name, value) => sessionStorage.setItem(name, JSON.stringify(value));
