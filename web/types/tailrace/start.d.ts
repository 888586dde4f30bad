export function newStart(body: StartBody, key?: string, headers?: () => Record<string, string>): Started;
export type Started = {
    key: string;
    /**
     * JSON text
     */
    body: string;
    headers: () => Record<string, string>;
};
import type { StartBody } from "./types.js";
