/** @typedef {{seq: number, taken: number}} Place  `taken` is 0 when all of the entry is there */
/**
 * @param {string | null | undefined} cursor  an event's id, or what stands after its colon
 * @returns {Place}
 */
export function placeOf(cursor: string | null | undefined): Place;
/**
 * Where a chunk of a WebSocket begins and ends (docs/broadcasting.md, "Chunks").
 *
 * @param {Record<string, any>} data  of a `MessageChunkReceived`
 * @returns {{begin: Place, end: Place}}
 */
export function spanOf({ chunk, seq, first_seq: first, offset, cursor }: Record<string, any>): {
    begin: Place;
    end: Place;
};
/**
 * What a chunk is for a reader at a place: the `next` thing, something it `had` already, or not to be used, as there is
 * a `gap` before it or as it has only a part of it.
 *
 * @param {Place} here
 * @param {Record<string, any>} data
 * @returns {"next" | "had" | "gap"}
 */
export function chunkIs(here: Place, data: Record<string, any>): "next" | "had" | "gap";
export function placeText({ seq, taken }: Place): string;
export function reaches(here: Place, end: Place): boolean;
/**
 * `taken` is 0 when all of the entry is there
 */
export type Place = {
    seq: number;
    taken: number;
};
