// Where a reader is in a reply: the last entry of its log that it has, and how many characters of one it has in part.
// The id of an event is `<message id>:<seq>`, or `<message id>:<seq>.<characters>`.

/** @typedef {{seq: number, taken: number}} Place  `taken` is 0 when all of the entry is there */

/**
 * @param {string | null | undefined} cursor  an event's id, or what stands after its colon
 * @returns {Place}
 */
export function placeOf(cursor) {
  const [seq, taken] = (cursor ?? "").slice((cursor ?? "").lastIndexOf(":") + 1).split(".");
  return { seq: Number(seq) || 0, taken: Number(taken) || 0 };
}

/** Whether a reader at one place has what ends at another. */
export const reaches = (/** @type {Place} */ here, /** @type {Place} */ end) =>
  end.seq < here.seq || (end.seq === here.seq && (here.taken === 0 || (end.taken !== 0 && end.taken <= here.taken)));
