// Server-sent events from a fetch: bytes of any cut in; out comes each event's id, and its data as JSON.
// EventSource can neither POST nor begin at a cursor; the shapes are in docs/http.md.

export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let tail = "";
  let id = "";
  let data = null;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (tail + value).split("\n");
      tail = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data: ")) data = line.slice(6);
        else if (line.startsWith("id: ")) id = line.slice(4);
        else if (line === "" && data !== null) {
          yield { id, data: JSON.parse(data) };
          data = null;
        }
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
