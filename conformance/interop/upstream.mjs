// An upstream of Node's ws. What it does is in the last segment of the path:
//
//   echo      sends each message back
//   info      tells first how it was called, then echoes
//   close     closes with ?code= and ?reason= (none without them) upon the first message
//   closed    tells how the session with ?id= has ended
//   refuse    no session: ?status= with a body
//   die       cuts the connection upon the first message; ?half: in the middle of one of its own
//   ping      pings upon the first message, and tells what the pong carries
//
// Usage: upstream.mjs UNIX_PATH. Prints "ready PORT".
import http from "node:http";
import { WebSocketServer } from "ws";

const MOST = 32 << 20;
const ended = new Map();
const ending = id => {
  if (!ended.has(id)) {
    const entry = {};
    entry.promise = new Promise(resolve => { entry.resolve = resolve; });
    ended.set(id, entry);
  }
  return ended.get(id);
};

const server = new WebSocketServer({
  noServer: true,
  perMessageDeflate: { threshold: 0 },
  maxPayload: MOST,
  handleProtocols: offered => offered.has("chat.v1") ? "chat.v1" : false,
});
server.on("headers", (lines, request) => {
  request.answered = lines.find(line => /^sec-websocket-extensions:/i.test(line))?.split(": ")[1] ?? null;
});

function upgrade(request, socket, head) {
  const url = new URL(request.url, "http://upstream");
  const what = url.pathname.split("/").at(-1);
  socket.on("error", () => {});
  if (what === "refuse") {
    const body = "the upstream says no";
    const status = url.searchParams.get("status");
    const realm = status === "401" ? "WWW-Authenticate: Bearer realm=\"interop\"\r\n" : "";
    socket.end(`HTTP/1.1 ${status} No\r\n${realm}Content-Type: text/plain\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`);
    return;
  }
  server.handleUpgrade(request, socket, head, session => serve(session, request, url, what));
}

function serve(session, request, url, what) {
  const query = url.searchParams;
  session.on("error", () => {});
  session.on("close", (code, reason) => {
    const id = query.get("id");
    if (id) ending(id).resolve({ code, reason: reason.toString() });
  });
  if (what === "info") {
    session.send(JSON.stringify({
      path: request.url,
      headers: request.headers,
      answered: request.answered,
      protocol: session.protocol,
    }));
  }
  if (what === "closed") {
    ending(query.get("of")).promise.then(end => session.send(JSON.stringify(end)));
    return;
  }
  session.on("message", (data, binary) => {
    switch (what) {
      case "close":
        if (query.has("code")) session.close(Number(query.get("code")), query.get("reason") ?? "");
        else session.close();
        break;
      case "die":
        // The first 10 bytes of a binary message of 100.
        if (query.has("half")) session._socket.write(Buffer.concat([Buffer.from([0x82, 100]), Buffer.alloc(10)]), () => session.terminate());
        else session.terminate();
        break;
      case "ping":
        session.once("pong", payload => session.send("pong:" + payload.toString()));
        session.ping(data.toString());
        break;
      default:
        session.send(data, { binary });
    }
  });
}

for (const where of [{ host: "127.0.0.1", port: 0 }, { path: process.argv[2] }]) {
  const listener = http.createServer((_, response) => response.writeHead(426).end());
  listener.on("upgrade", upgrade);
  listener.listen(where, () => { if (where.host) console.log("ready " + listener.address().port); });
}
