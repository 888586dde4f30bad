// Server-sent events from a fetch: bytes of any cut in, the JSON of whole events out.
// EventSource cannot POST; the shapes are in docs/http.md.

export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let tail = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (tail + value).split("\n");
      tail = lines.pop();
      for (const line of lines) {
        // Each event is one line of data here. Ids, keep-alive comments and blank lines are of no use to the page.
        if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
