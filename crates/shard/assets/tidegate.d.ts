/** An EventTarget that knows its events. */
declare class Emitter<Events> extends EventTarget {
  /** Listens; the returned function ends that. */
  on<T extends keyof Events>(type: T, listener: (event: Events[T]) => void): () => void;
  addEventListener<T extends keyof Events>(type: T, listener: (event: Events[T]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<T extends keyof Events>(type: T, listener: (event: Events[T]) => void, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/** JSON as it is published and received. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** A place in a topic: an epoch names a run of offsets. */
export interface Position {
  epoch: string;
  offset: number;
}

export type TransportName = "websocket" | "events" | "poll";
export type State = "connecting" | "open" | "waiting" | "closed";
export type BinaryType = "blob" | "arraybuffer";

/** Codes of the gateway's errors, and of this library's. */
export type ErrorCode =
  | "invalid_json" | "invalid_request" | "unknown_op" | "invalid_topic" | "not_allowed" | "too_many" | "too_large"
  | "already_subscribed" | "not_subscribed" | "invalid_token" | "no_history" | "no_presence" | "busy" | "binary"
  /** It was sent, and no answer came: it may or may not have been done. */
  | "unknown"
  /** It was certainly not done. */
  | "not_sent"
  /** No answer to a question in time. */
  | "timeout"
  /** Too much waits to be sent already. */
  | "backlog"
  /** This client, or this subscription, has ended. */
  | "closed"
  /** Not over this transport. */
  | "unsupported"
  /** An iterator's reader left too many messages unread. */
  | "too_slow"
  | (string & {});

export class TidegateError extends Error {
  constructor(code: ErrorCode, message: string, topic?: string);
  readonly code: ErrorCode;
  readonly topic?: string;
}

export interface Options {
  /** Which ways to try, in this order. All three unless told. */
  transports?: readonly TransportName[];
  /** Where the gateway has them, if not beside its topics: paths such as "/push/events". */
  paths?: { events?: string; poll?: string; publish?: string };
  /** Headers of the requests for polling and publishing, such as `authorization`. A WebSocket in a browser has none. */
  headers?: Record<string, string>;
  /**
   * Who this is, to a gateway that asks: a token, or a function that gives one whenever a connection begins and before the one that was shown
   * expires. Polls and publications show it in `Authorization`.
   */
  token?: string | (() => string | Promise<string>);
  /**
   * Where a WebSocket shows it, as the gateway's `token` has it: "subprotocol:PREFIX", or "query:NAME", where streams of events show it, too.
   * "subprotocol:token." unless told. For raw topics the route has to list `tidegate.v1` among its subprotocols then, as browsers want one of
   * theirs chosen.
   */
  tokenPlace?: `subprotocol:${string}` | `query:${string}`;
  /** The close code that says that a token has expired: with a function as `token` the client comes back with a newer one. 4401. */
  expiredCode?: number;
  /** What binary messages are given as; "blob" unless told, as for a WebSocket. */
  binaryType?: BinaryType;
  /** How long a transport may take to open. 10 s. */
  connectTimeoutMs?: number;
  /** How long an answer may take, waiting for a connection included. 30 s; four minutes for a publication with `once`. */
  answerTimeoutMs?: number;
  /** After so much silence the client asks whether the connection lives. 0: what the gateway says, 25 s as a rule. */
  heartbeatMs?: number;
  /** So long may the answer to that take. 10 s. */
  pongTimeoutMs?: number;
  /** The first wait before a new try is up to this; each further one up to twice as much as the last. 500 ms. */
  baseWaitMs?: number;
  /** The longest wait. 30 s. */
  maxWaitMs?: number;
  /** So many tries in a row, and no more. No limit unless told. */
  maxTries?: number;
  /** A connection that was open for so long starts the count of tries anew. 10 s. */
  livedMs?: number;
  /** So many WebSockets that never opened lead on to the next transport; three times as many where they have worked before. 2. */
  fallbackAfter?: number;
  /** Over another transport: about how often to look whether WebSockets work by now. 5 minutes. */
  webSocketAgainMs?: number;
  /** Nothing more is given to the network while its `bufferedAmount` is above this. 256 KiB. */
  bufferedBytes?: number;
  /** Publications that wait to be sent beyond this are refused (`backlog`). 1 MiB. */
  waitingBytes?: number;
  /** Where the platform has none: for one, that of the package `ws`. */
  WebSocket?: unknown;
  /** Where the platform has none: for one, that of the package `eventsource`. Without it, long-polling is used. */
  EventSource?: unknown;
  fetch?: typeof fetch;
  /** Clock, dice and page, for tests. */
  environment?: Partial<Environment>;
  onstate?: (event: StateEvent) => void;
  onerror?: (event: FailureEvent) => void;
}

export interface Environment {
  now(): number;
  setTimeout(run: () => void, ms: number): unknown;
  clearTimeout(timer: any): void;
  random(): number;
  page: { document: EventTarget & { hidden: boolean }; window: EventTarget; navigator: { onLine: boolean } } | null;
}

/** What a raw topic says of its connection. That is always a WebSocket, so no transport is named. */
export interface RawStateEvent extends Event {
  readonly state: State;
  readonly previous: State;
  /** With "waiting": until the next try. */
  readonly waitMs?: number;
  /** With "waiting": which try in a row it will be. */
  readonly tries?: number;
  /** With "waiting" and "closed": how the connection ended. 1006 where there was no Close. */
  readonly code?: number;
  readonly reason?: string;
  /**
   * With "waiting": "timeout", "silence", "stream", "token" (there was none), …
   * With "closed": "closed" (by `close`), "told" (the gateway said not to come back), "gave_up" (`maxTries`), "version" (a client's alone).
   */
  readonly cause?: string;
}

export interface StateEvent extends RawStateEvent {
  /** With "open". */
  readonly transport: TransportName | null;
  /** With "waiting": of the request that failed. */
  readonly status?: number;
}

export interface FailureEvent extends Event {
  readonly error: TidegateError;
  readonly code: ErrorCode;
  readonly message: string;
  /** Of a client's: which command the gateway means, where it says so. */
  readonly id?: number | null;
}

export type Content =
  | { readonly kind: "json"; readonly data: any }
  | { readonly kind: "text"; readonly data: string }
  | { readonly kind: "binary"; readonly data: Blob | ArrayBuffer };

export type Message = Content & {
  readonly topic: string;
  readonly offset: number;
};

export type TopicMessageEvent = Event & Message & {
  /** Undefined for a pattern's messages. */
  readonly epoch?: string;
  /** It was published before the gateway answered: history, a missed message, a state. */
  readonly replayed: boolean;
};

export interface SubscribedEvent extends Event {
  readonly topic: string;
  readonly epoch?: string;
  readonly offset?: number;
  /**
   * Undefined where there was nothing to recover: the first answer without the option `recover`. True: all that was missed
   * follows. False: something may be missing, and what follows (`history`, states) starts anew.
   */
  readonly recovered?: boolean;
}

export interface GapEvent extends Event {
  readonly topic: string;
  /** These offsets will not come, `from` and `to` included. */
  readonly from: number;
  readonly to: number;
  readonly reason: "slow" | "busy" | (string & {});
}

export interface PresenceEvent extends Event {
  readonly topic: string;
  readonly client: string;
  /** What that client says of itself; not with a leave. */
  readonly info?: any;
}

/** Joins and leaves are missing: who wants to know who is there asks anew, with `client.presence(topic)`. */
export interface PresenceGapEvent extends Event {
  readonly topic: string;
}

export interface SubscriptionEvents {
  subscribed: SubscribedEvent;
  message: TopicMessageEvent;
  gap: GapEvent;
  join: PresenceEvent;
  leave: PresenceEvent;
  presencegap: PresenceGapEvent;
  error: FailureEvent;
}

export interface SubscribeOptions {
  /** So many of the last messages come first. */
  history?: number;
  /** Joins and leaves come too, over a WebSocket. Over HTTP this or `info` makes the client present in the topic. */
  presence?: boolean;
  /** What the others see of this client: JSON of up to 1 KiB. Over HTTP that of one topic stands for all that share a stream or a poll. */
  info?: Json;
  /** The position of an earlier subscription, to go on from there. */
  recover?: Position;
  binaryType?: BinaryType;
  /** How many messages an iterator keeps for its reader. 10,000. */
  backlog?: number;
  onsubscribed?: (event: SubscribedEvent) => void;
  onmessage?: (event: TopicMessageEvent) => void;
  ongap?: (event: GapEvent) => void;
  onjoin?: (event: PresenceEvent) => void;
  onleave?: (event: PresenceEvent) => void;
  onpresencegap?: (event: PresenceGapEvent) => void;
  onerror?: (event: FailureEvent) => void;
}

export class Subscription extends Emitter<SubscriptionEvents> implements AsyncIterable<Omit<TopicMessageEvent, keyof Event>> {
  private constructor();
  readonly topic: string;
  readonly state: "pending" | "subscribed" | "ended" | "failed";
  /** Up to where everything came; null before the first answer, and for patterns. */
  readonly position: Position | null;
  /** Fulfilled with the gateway's first answer, rejected if it refuses. */
  readonly ready: Promise<Subscription>;
  unsubscribe(): void;
  /** The messages from now on. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Omit<TopicMessageEvent, keyof Event>>;
}

export interface PublishOptions {
  /** In a topic that conflates: of the messages of one key a slow subscriber gets the newest. */
  key?: string;
  /** An idempotency key, or `true` for a new one: what got no answer is sent again, and done once (until the gateway restarts). */
  once?: string | true;
  /** Publish the data as a text instead of JSON. */
  text?: boolean;
  timeoutMs?: number;
}

export interface Published extends Position {
  topic: string;
  /** What is known: "accepted" is in the gateway's memory. Not that anybody got it. */
  level: "accepted" | (string & {});
  /** It had been published before, at this position. */
  duplicate: boolean;
}

export interface Presence {
  topic: string;
  count: number;
  /** At most 1,000 of them. */
  clients: { client: string; info?: any }[];
}

export interface History extends Position {
  topic: string;
  /** Oldest first. */
  messages: Message[];
}

export interface RawMessageEvent extends Event {
  readonly topic: string;
  readonly kind: "text" | "binary";
  readonly data: string | Blob | ArrayBuffer;
}

export interface RawEvents {
  state: RawStateEvent;
  message: RawMessageEvent;
}

export class RawTopic extends Emitter<RawEvents> {
  private constructor();
  readonly topic: string;
  binaryType: BinaryType;
  readonly state: State;
  readonly bufferedAmount: number;
  /** Fulfilled when it is handed to the network; rejected (`not_sent`, `backlog`) if it is not. */
  send(data: string | ArrayBuffer | ArrayBufferView | Blob): Promise<void>;
  close(code?: number, reason?: string): void;
}

export interface ClientEvents {
  state: StateEvent;
  error: FailureEvent;
}

export class Client extends Emitter<ClientEvents> {
  private constructor();
  readonly state: State;
  readonly transport: TransportName | null;
  /** Its name in presence: the connection's, another one after each reconnect; over HTTP always the same. */
  readonly id: string | null;
  /** About how many bytes are given to `publish` and not yet to the network. */
  readonly bufferedAmount: number;
  /**
   * @param topic a name, or a pattern: `*` is one segment, `**` at the end one or more
   * @throws {TidegateError} `already_subscribed`, `closed`
   */
  subscribe(topic: string, options?: SubscribeOptions): Subscription;
  unsubscribe(subscription: Subscription | string): void;
  /** Rejected with the gateway's code, or `not_sent`, `unknown`, `backlog`, `closed`. */
  publish(topic: string, data: Json | ArrayBuffer | ArrayBufferView | Blob | object, options?: PublishOptions): Promise<Published>;
  /** Who is there. */
  presence(topic: string): Promise<Presence>;
  /** The newest messages (100 unless told), or those before an offset; the latter over a WebSocket. */
  history(topic: string, options?: { limit?: number; before?: number }): Promise<History>;
  /**
   * A topic without the protocol. Needs WebSockets; nothing is recovered.
   * @throws {TidegateError} `invalid_topic` where a segment of the name is empty, `.` or `..`
   */
  raw(topic: string, options?: { binaryType?: BinaryType; onstate?: (event: RawStateEvent) => void; onmessage?: (event: RawMessageEvent) => void }): RawTopic;
  /** Tries at once, instead of waiting or after the gateway said not to come back. */
  reconnect(): void;
  /** For good. */
  close(code?: number, reason?: string): void;
}

/** @param url of the gateway's topics, such as "wss://example.org/topics"; in a page "/topics" will do, and is the default */
export function connect(url?: string | URL, options?: Options): Client;

/** Whether a pattern fits a topic's name. */
export function matches(pattern: string, topic: string): boolean;

export {};
