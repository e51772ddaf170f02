// node ws.cjs PORT: an echo on ws.
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(process.argv[2]),
  backlog: 4096,
  maxPayload: 64 << 20,
  perMessageDeflate: false,
});
server.on('connection', (socket) => {
  // A client that leaves ends its session, and no more.
  socket.on('error', () => {});
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});
