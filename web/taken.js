// Whether the server has taken a start. Afterwards a reply goes on whatever happens; before, what was typed must not be lost.

const ATTEMPTS = 3; // to reach a server that does not answer, while the browser is online

/** Wait until a start was taken. Return null, or why it was not. */
export function taken(reply) {
  return new Promise((resolve) => {
    reply.started.then(
      () => resolve(null),
      (error) => resolve(error),
    );
    reply.addEventListener("connection", ({ detail: { state, attempt } }) => {
      if (reply.messageId !== null || state !== "waiting" || !navigator.onLine || attempt < ATTEMPTS) return;
      resolve({ type: "unreachable", message: "The server cannot be reached." });
      reply.close();
    });
  });
}
