// bun bun.js PORT [echo|publish] [CERTIFICATE KEY]: Bun's WebSocket server, as an echo, or publishing what any session sends to
// all of them; over TLS where it is given the files.
const [port, mode, certificate, key] = process.argv.slice(2);
const publishes = mode === 'publish';
Bun.serve({
  hostname: '127.0.0.1',
  port: Number(port),
  tls: certificate && { cert: Bun.file(certificate), key: Bun.file(key) },
  fetch(request, server) {
    return server.upgrade(request) ? undefined : new Response('an upgrade is needed', { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: 64 << 20,
    backpressureLimit: 64 << 20,
    idleTimeout: 0,
    publishToSelf: true,
    open(socket) {
      if (publishes) socket.subscribe('all');
    },
    message(socket, message) {
      if (publishes) socket.publish('all', message);
      else socket.send(message);
    },
  },
});
