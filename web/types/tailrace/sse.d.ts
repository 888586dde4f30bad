/** Feed it bytes; it returns the events that are whole. What comes after the last blank line is never an event. */
export class EventDecoder {
    /**
     * @param {Uint8Array} bytes
     * @returns {{id: string, data: string}[]}
     */
    feed(bytes: Uint8Array): {
        id: string;
        data: string;
    }[];
    #private;
}
