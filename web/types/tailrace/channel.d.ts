export class Channel {
    /**
     * @param {string} name  the whole name, such as `presence-conversation.ID`
     * @param {{send: (frame: Frame) => void, resubscribe: (channel: Channel) => void, leave: (channel: Channel) => void}} socket
     * @param {ChannelOptions} [options]
     */
    constructor(name: string, { send, resubscribe, leave }: {
        send: (frame: Frame) => void;
        resubscribe: (channel: Channel) => void;
        leave: (channel: Channel) => void;
    }, { namespace, after, delivery }?: ChannelOptions);
    name: string;
    /**
     * Call a function for each event of a name: `MessageCompleted`, or `.any.name` without the namespace.
     *
     * @param {string} event
     * @param {Listener} callback
     */
    listen(event: string, callback: Listener): this;
    /** Take away one listener, or all of an event. */
    stopListening(event: string, callback: Listener): this;
    /** Call a function for every event, with its name. */
    listenToAll(callback: (event: string, data: any) => void): this;
    stopListeningToAll(callback: (event: string, data: any) => void): this;
    listenForWhisper(name: string, callback: Listener): this;
    stopListeningForWhisper(name: string, callback: Listener): this;
    notification(callback: Listener): this;
    stopListeningForNotification(callback: Listener): this;
    /** Call a function each time the subscription has succeeded, after a reconnect too. */
    subscribed(callback: Listener): this;
    /** Call a function when the subscription is refused, or a whisper. */
    error(callback: (error: TailraceError) => void): this;
    /** As `listen`, by the whole name. */
    on(event: string, callback: Listener): this;
    /** Who is here, on a presence channel. */
    get members(): Member[];
    /** Call a function with the members, when the subscription has succeeded and after each reconnect. */
    here(callback: (members: Member[]) => void): this;
    joining(callback: (member: Member) => void): this;
    leaving(callback: (member: Member) => void): this;
    /** Tell the others of a private or presence channel something, past the server's log. */
    whisper(name: string, data: any): this;
    /** Ask for what comes after these cursors too: message id to cursor. */
    catchUp(after: Record<string, string | number>): this;
    /** What is there of each reply that is being written: keep it, and hand it back as `after`. */
    get cursors(): {
        [k: string]: string;
    };
    leave(): void;
    /** What is asked for now. @returns {Subscription} */
    get subscription(): Subscription;
    get isSigned(): boolean;
    /** The connection was lost. */
    lost(): void;
    /** The subscription cannot be asked for. */
    refused(error: TailraceError): void;
    take({ event, data }: Frame): void;
    #private;
}
export type Listener = (data: any) => void;
export type Member = {
    user_id: string | number;
    user_info: any;
};
export type ChannelOptions = {
    /**
     * of the events, "App\Events" when left out
     */
    namespace?: string | undefined;
    /**
     * what is there of each reply: message id to cursor
     */
    after?: Record<string, string | number> | undefined;
    delivery?: Delivery | undefined;
};
import { TailraceError } from "./errors.js";
import type { Subscription } from "./socket-connection.js";
import type { Frame } from "./socket-connection.js";
import type { Delivery } from "./types.js";
