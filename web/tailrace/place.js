// Where a reader is in a reply: the last entry of its log that it has, and how many characters of one it has in part.
// The id of an event is `<message id>:<seq>`, or `<message id>:<seq>.<characters>`. Pure.

/** @typedef {{seq: number, taken: number}} Place  `taken` is 0 when all of the entry is there */

/**
 * @param {string | null | undefined} cursor  an event's id, or what stands after its colon
 * @returns {Place}
 */
export function placeOf(cursor) {
  const [seq, taken] = (cursor ?? "").slice((cursor ?? "").lastIndexOf(":") + 1).split(".");
  return { seq: Number(seq) || 0, taken: Number(taken) || 0 };
}

export const placeText = (/** @type {Place} */ { seq, taken }) => (taken ? `${seq}.${taken}` : `${seq}`);

/** Whether a reader at one place has what ends at another. */
export const reaches = (/** @type {Place} */ here, /** @type {Place} */ end) =>
  end.seq < here.seq || (end.seq === here.seq && (here.taken === 0 || (end.taken !== 0 && end.taken <= here.taken)));

/**
 * Where a chunk of a WebSocket begins and ends (docs/broadcasting.md, "Chunks").
 *
 * @param {Record<string, any>} data  of a `MessageChunkReceived`
 * @returns {{begin: Place, end: Place}}
 */
export function spanOf({ chunk = "", seq, first_seq: first, offset = 0, cursor }) {
  const begin = offset ? { seq: first, taken: offset } : { seq: first - 1, taken: 0 };
  if (cursor !== undefined) return { begin, end: placeOf(cursor) };
  // Of an entry that does not fit into one frame, all frames but the last leave `seq` where it was.
  const isCut = seq < first && chunk !== "";
  return { begin, end: isCut ? { seq: first, taken: offset + [...chunk].length } : { seq, taken: 0 } };
}

/**
 * What a chunk is for a reader at a place: the `next` thing, something it `had` already, or not to be used, as there is
 * a `gap` before it or as it has only a part of it.
 *
 * @param {Place} here
 * @param {Record<string, any>} data
 * @returns {"next" | "had" | "gap"}
 */
export function chunkIs(here, data) {
  const { begin, end } = spanOf(data);
  if (begin.seq === here.seq && begin.taken === here.taken) return "next";
  return reaches(here, end) ? "had" : "gap";
}
