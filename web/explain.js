// What went wrong, in words, and what to do about it.

const TODO = {
  unreachable: "Check that the stack is running and that you are online, then send it again.",
  lost: "What was written is kept. Reconnect when the network is back.",
  rate_limited: "Wait a moment, then send it again.",
  unauthenticated: "Sign in again.",
  not_found: "It may have been deleted in another window.",
  conflict: "Another window was faster. Reload to see what it did.",
  too_large: "Send less at once, or smaller images.",
  unprocessable: "Change the provider, the model or what you sent.",
  timeout: "Ask again, perhaps for less.",
  timeout_connect: "The provider does not answer. Ask again, or choose another one.",
  timeout_first_chunk: "The provider does not answer. Ask again, or choose another one.",
  timeout_idle: "The provider fell silent. Ask again, or choose another one.",
  api_error: "Ask again, or choose another provider or model.",
  content_filter: "Ask in other words.",
  invalid_output: "Ask again.",
  store_unavailable: "The database gave no answer. Try again in a moment.",
  interrupted: "Whoever wrote it was shut down or died. What was written is kept; ask again for the rest.",
  timed_out: "It ran into the time limit. What was written is kept; ask again for the rest.",
  general_error: "Try again. The server's log has more.",
};

/** A sentence that says what happened, and one that says what to do. */
export function explain(error) {
  const said = error?.message || "Something went wrong on this page.";
  const type = error?.type ?? "general_error";
  const wait = error?.retryAfter ? `Wait ${Math.ceil(error.retryAfter)} seconds, then send it again.` : TODO[type];
  return wait ? `${said} ${wait}` : said;
}

/** What the connection of a reply is doing, if that is worth telling; otherwise nothing. */
export function describeConnection({ state, attempt }, isOnline) {
  if (state === "waiting" && !isOnline) return "You are offline. The reply goes on; the rest comes when you are back.";
  if (attempt > 0 && (state === "waiting" || state === "connecting")) return "Reconnecting… The reply goes on without you.";
  return "";
}
