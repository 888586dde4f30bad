// What a stored reply consists of, in the order in which it was said. Pure.

/**
 * Return [{kind: "reasoning", text} | {kind: "text", text} | {kind: "tools", tools} | {kind: "step", number}].
 *
 * `step_ends` says of each step where it ends, in characters (not UTF-16 units), calls and results; without it the calls
 * come before the text.
 */
export function partsOf({ content, metadata = {} }) {
  const calls = (metadata.tool_calls ?? []).map((call) => ({ ...call, state: "called" }));
  for (const { id, name, result, is_error: isError } of metadata.tool_results ?? []) {
    let call = calls.find((each) => each.id === id);
    if (!call) calls.push((call = { id, name, arguments: undefined }));
    Object.assign(call, { result, state: isError ? "failed" : "done" });
  }
  for (const call of calls) {
    if (metadata.approvals?.includes(call.id)) call.state = "waiting";
    if (metadata.unfinished_tools?.some(({ id }) => id === call.id)) call.state = "unknown";
  }
  const characters = metadata.step_ends?.length ? [...content] : null;
  const found = metadata.reasoning ? [{ kind: "reasoning", text: metadata.reasoning }] : [];
  const say = (text) => text && found.push({ kind: "text", text });
  const use = (tools) => tools.length && found.push({ kind: "tools", tools });
  if (!characters) {
    use(calls);
    say(content);
    return found;
  }
  let at = [0, 0];
  metadata.step_ends.forEach(([end, called], index) => {
    if (index) found.push({ kind: "step", number: index + 1 });
    say(characters.slice(at[0], end).join(""));
    use(calls.slice(at[1], called));
    at = [end, called];
  });
  const [rest, more] = [characters.slice(at[0]).join(""), calls.slice(at[1])];
  if (rest || more.length) found.push({ kind: "step", number: metadata.step_ends.length + 1 });
  say(rest);
  use(more);
  return found;
}

/** What is said of a reply's size and speed once it is there. */
export function countsOf({ metadata = {}, usage, model, provider }) {
  const { stream_chunks: chunks, stream_duration: seconds, time_to_first_chunk: first } = metadata;
  return [
    model ?? provider,
    chunks !== undefined && counted(chunks, "chunk"),
    usage?.completion_tokens > 0 && counted(usage.completion_tokens, "token"),
    seconds !== undefined && `${seconds.toFixed(1)} s`,
    first !== undefined && first !== null && `first chunk after ${Math.round(first * 1000)} ms`,
  ].filter(Boolean);
}

/** The same while it comes. */
export function countsSoFar({ chunks, characters, elapsed, speed }) {
  return [counted(chunks, "chunk"), counted(characters, "character"), `${elapsed.toFixed(1)} s`, `${Math.round(speed)} characters/s`];
}

const counted = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
