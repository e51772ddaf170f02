// Every export of the package, used as its users do: types.test.mjs compiles this, and looks that nothing is left out.
import {
  Client, connect, matches, RawTopic, Subscription, TidegateError,
  type BinaryType, type ClientEvents, type Content, type Environment, type ErrorCode, type FailureEvent, type GapEvent, type History, type Json,
  type Message, type Options, type Position, type Presence, type PresenceEvent, type PresenceGapEvent, type Published, type PublishOptions,
  type RawEvents, type RawMessageEvent, type RawStateEvent, type State, type StateEvent, type SubscribedEvent, type SubscribeOptions,
  type SubscriptionEvents, type TopicMessageEvent, type TransportName,
} from "tidegate";

const page: Environment["page"] = null;
const binaryType: BinaryType = "arraybuffer";
const transports: readonly TransportName[] = ["websocket", "events", "poll"];
const options: Options = {
  transports, binaryType, paths: { events: "/push/events" }, headers: { authorization: "Bearer x" }, maxTries: 3, fetch,
  environment: { now: () => 0, page },
  onstate: ({ state, previous, transport, waitMs }: StateEvent) => { const all: [State, State, TransportName | null, number?] = [state, previous, transport, waitMs]; return void all; },
  onerror: ({ error, code, message }: FailureEvent) => { const all: [TidegateError, ErrorCode, string] = [error, code, message]; return void all; },
};
// @ts-expect-error there is no such transport
const wrong: Options = { transports: ["telepathy"] };
// @ts-expect-error nor such an option
const misspelt: Options = { maxTry: 3 };

const client: Client = connect(new URL("wss://example.org/topics"), options);
connect();
// @ts-expect-error only `connect` makes one
new Client();

const stop: () => void = client.on("state", event => { const { transport, status }: ClientEvents["state"] = event; return void [transport, status]; });
client.addEventListener("error", event => event.error.code);
client.addEventListener("state", event => event.previous, { once: true });
stop();

const info: Json = { name: "Ada", tags: ["a", null, 1, true] };
const recover: Position = { epoch: "9f86d081", offset: 41 };
const wanted: SubscribeOptions = {
  history: 10, presence: true, info, recover, binaryType, backlog: 5,
  onmessage: (event: TopicMessageEvent) => event.replayed,
  onsubscribed: (event: SubscribedEvent) => event.recovered,
  ongap: ({ from, to, reason }: GapEvent) => [from + to, reason],
  onjoin: ({ client, info }: PresenceEvent) => [client, info],
  onleave: ({ client }: PresenceEvent) => client,
  onpresencegap: ({ topic }: PresenceGapEvent) => topic,
  onerror: ({ code }: FailureEvent) => code,
};

function read(content: Content): string | number {
  switch (content.kind) {
    case "text": return content.data.length;
    case "binary": return content.data instanceof Blob ? content.data.size : content.data.byteLength;
    case "json": return String(content.data);
  }
}

async function talk(): Promise<void> {
  const lobby: Subscription = await client.subscribe("chat/lobby", wanted).ready;
  const seen: SubscriptionEvents["message"][] = [];
  lobby.on("message", event => { seen.push(event); read(event); });
  const state: "pending" | "subscribed" | "ended" | "failed" = lobby.state;
  const position: Position | null = lobby.position;
  // @ts-expect-error it may be null
  const offset: number = lobby.position.offset;
  for await (const { data, offset, epoch } of lobby) if (data === offset || epoch === state) break;

  const said: PublishOptions = { once: true, key: "a", text: false, timeoutMs: 5 };
  const { level, duplicate, epoch }: Published = await client.publish("chat/lobby", { text: "Hello" }, said);
  await client.publish("chat/lobby", new Uint8Array([1]));
  await client.publish("chat/lobby", new Blob([]));
  const { count, clients }: Presence = await client.presence("chat/lobby");
  const { messages }: History = await client.history("chat/lobby", { limit: 5, before: 3 });
  const kept: Message[] = messages;
  for (const message of kept) read(message);
  lobby.unsubscribe();
  client.unsubscribe("chat/lobby");
  void [position, offset, level, duplicate, epoch, count, clients[0]?.info];
}

const raw: RawTopic = client.raw("broadcast", {
  binaryType: "blob",
  onstate: (event: RawStateEvent) => event.cause,
  onmessage: ({ kind, data }: RawMessageEvent) => [kind, data],
});
raw.on("state", event => {
  const { state, previous, waitMs, tries, code, reason, cause }: RawEvents["state"] = event;
  void [state, previous, waitMs, tries, code, reason, cause];
  // @ts-expect-error a raw topic names no transport
  void event.transport;
});
raw.binaryType = "arraybuffer";
const sent: Promise<void> = raw.send("text");
// @ts-expect-error what is sent is a text or bytes
raw.send({ text: "JSON" });
raw.close(4000, "done");

const failure = new TidegateError("not_sent", "no", "chat/lobby");
const told: [ErrorCode, string | undefined] = [failure.code, failure.topic];
const fits: boolean = matches("chat/*", "chat/lobby");
const names: [string | null, TransportName | null, number] = [client.id, client.transport, client.bufferedAmount];
client.reconnect();
client.close(1000, "done");
talk().catch((error: unknown) => { if (error instanceof TidegateError) throw error; });
void [wrong, misspelt, sent, told, fits, names];
