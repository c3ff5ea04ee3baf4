// A Minecraft server (flying-squid) and a player (mineflayer), both written by others.
//
//     node peer.js FOLDER
//
// Prints "port=…" when it listens, among other things. Reads "join" and "leave" for the player, and ends when its input
// does. It writes its world below FOLDER. The packages are found through NODE_PATH.
const net = require('net')
const readline = require('readline')

process.chdir(process.argv[2])
const HOST = '127.0.0.1'
const VERSION = '1.16.5'

const free = net.createServer()
free.listen(0, HOST, () => {
  const port = free.address().port
  free.close(() => serve(port))
})

function serve (port) {
  const squid = require('flying-squid')
  const settings = {
    ...require('flying-squid/config/default-settings.json'),
    host: HOST,
    port,
    motd: '§aA test §rhill',
    'max-players': 4,
    'online-mode': false,
    version: VERSION,
    logging: false,
    generation: { name: 'superflat', options: { worldHeight: 80 } }
  }
  const server = squid.createMCServer(settings)
  // A line of its own: the server writes a prompt before.
  server._server.on('listening', () => process.stdout.write(`\nport=${port}\n`))

  let bot
  const orders = readline.createInterface({ input: process.stdin })
  orders.on('line', (line) => {
    if (line === 'join') {
      bot = require('mineflayer').createBot({ host: HOST, port, username: 'Ann', version: VERSION })
    } else if (line === 'leave') {
      bot.quit()
    }
  })
  orders.on('close', () => process.exit(0))
}
