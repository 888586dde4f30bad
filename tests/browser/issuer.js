// An issuer of tokens on this machine: OpenID Connect's documents, a page that signs in whoever comes, and tokens for who
// proves by PKCE that they began it. RS256 by Node's own crypto.

import { createHash, generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

export class Issuer {
    /** Seconds that an access token is good for. */
    lifetime = 3600;

    /** Whether a refresh token is given, and taken. */
    refreshes = true;

    /** What the page answers instead of a code. */
    error = null;

    /** What is put in the place of the state that it was given. */
    state = null;

    /** What it calls itself in its answer instead. */
    iss = null;

    /** Where its document says that tokens are given instead. */
    tokenEndpoint = null;

    /** The grants that were taken, in their order. */
    granted = [];

    #begun = new Map();
    #refresh = null;

    static async start() {
        const issuer = new Issuer();
        issuer.server = createServer((request, response) => issuer.#answer(request, response));
        issuer.server.listen(0, '127.0.0.1');
        await once(issuer.server, 'listening');
        issuer.url = `http://127.0.0.1:${issuer.server.address().port}`;
        return issuer;
    }

    end() {
        this.server.close();
        this.server.closeAllConnections();
    }

    /** A token of this issuer. */
    token(claims = {}) {
        const now = Math.floor(Date.now() / 1000);
        const all = { iss: this.url, aud: 'page', sub: 'alice', iat: now, exp: now + this.lifetime, jti: randomUUID(), ...claims };
        const signed = `${encode({ alg: 'RS256', kid: 'one' })}.${encode(all)}`;
        return `${signed}.${sign('RSA-SHA256', Buffer.from(signed), privateKey).toString('base64url')}`;
    }

    async #answer(request, response) {
        const address = new URL(request.url, this.url);
        const respond = (status, body) => response
            .writeHead(status, { 'Content-Type': 'application/json', 'Access-Control-Allow-Origin': '*' })
            .end(JSON.stringify(body));
        switch (address.pathname) {
        case '/.well-known/openid-configuration':
            return respond(200, {
                issuer: this.url,
                authorization_endpoint: `${this.url}/authorize`,
                token_endpoint: this.tokenEndpoint ?? `${this.url}/token`,
                jwks_uri: `${this.url}/keys`,
                end_session_endpoint: `${this.url}/end`,
            });
        case '/keys':
            return respond(200, { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'RS256', use: 'sig' }] });
        case '/authorize':
            return response.writeHead(302, { Location: this.#page(address.searchParams) }).end();
        case '/end':
            return response.writeHead(302, { Location: address.searchParams.get('post_logout_redirect_uri') }).end();
        case '/token': {
            let body = '';
            for await (const part of request) body += part;
            const given = this.#grant(new URLSearchParams(body));
            return given ? respond(200, given) : respond(400, { error: 'invalid_grant' });
        }
        default:
            return respond(404, {});
        }
    }

    #page(asked) {
        const back = new URL(asked.get('redirect_uri'));
        back.searchParams.set('state', this.state ?? asked.get('state'));
        back.searchParams.set('iss', this.iss ?? this.url);
        if (this.error !== null || asked.get('response_type') !== 'code' || asked.get('code_challenge_method') !== 'S256') {
            back.searchParams.set('error', this.error ?? 'invalid_request');
            return back.href;
        }
        const code = randomUUID();
        this.#begun.set(code, Object.fromEntries(asked));
        back.searchParams.set('code', code);
        return back.href;
    }

    #grant(asked) {
        if (asked.get('client_id') !== 'page') return null;
        let nonce;
        if (asked.get('grant_type') === 'authorization_code') {
            const begun = this.#begun.get(asked.get('code'));
            this.#begun.delete(asked.get('code'));
            const challenge = createHash('sha256').update(asked.get('code_verifier') ?? '').digest('base64url');
            if (begun?.code_challenge !== challenge || begun.redirect_uri !== asked.get('redirect_uri')) return null;
            nonce = this.nonce ?? begun.nonce;
        } else if (!this.refreshes || asked.get('refresh_token') !== this.#refresh) return null;
        this.granted.push(asked.get('grant_type'));
        this.#refresh = randomUUID(); // each is good for once
        return {
            access_token: this.token(),
            token_type: 'Bearer',
            expires_in: this.lifetime,
            ...(this.refreshes && { refresh_token: this.#refresh }),
            ...(nonce && { id_token: this.token({ nonce }) }),
        };
    }
}
