// The official SignalR client, as a ProjectX user runs it: subscribe all three streams of a contract, count what comes.
//
//   node client.mjs MODULES API HUB CONTRACT COUNT NEGOTIATE
//
// MODULES is the folder whose node_modules hold @microsoft/signalr. It ends after COUNT records, coming back if the hub
// closes the connection on the way, and prints what it heard as JSON.

import { createRequire } from "node:module";

const [modules, api, hub, contract, count, negotiate] = process.argv.slice(2);
const signalr = createRequire(`${modules}/`)("@microsoft/signalr");

const login = await fetch(`${api}/api/Auth/loginKey`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ userName: "node", apiKey: "demo" }),
});
const { token } = await login.json();

const heard = { GatewayQuote: 0, GatewayTrade: 0, GatewayDepth: 0 };
const facts = { reconnected: 0, refused: null, first: null };
let finish;
const finished = new Promise((resolve) => (finish = resolve));

const connection = new signalr.HubConnectionBuilder()
  .withUrl(hub.replace("ws://", "http://"), {
    accessTokenFactory: () => token,
    skipNegotiation: negotiate !== "negotiate",
    transport: signalr.HttpTransportType.WebSockets,
  })
  .withAutomaticReconnect([0, 10, 100, 1000])
  .configureLogging(signalr.LogLevel.Error)
  .build();

for (const target of Object.keys(heard)) {
  connection.on(target, (contractId, data) => {
    facts.first ??= [target, contractId, data];
    heard[target] += 1;
    if (heard.GatewayQuote + heard.GatewayTrade + heard.GatewayDepth === Number(count)) finish();
  });
}

async function subscribe() {
  for (const method of ["SubscribeContractQuotes", "SubscribeContractTrades", "SubscribeContractMarketDepth"]) {
    await connection.invoke(method, contract);
  }
}

connection.onreconnected(async () => {
  facts.reconnected += 1;
  await subscribe();
});

await connection.start();
await connection.invoke("SubscribeContractQuotes", "CON.F.US.NONE.Z99").catch((error) => (facts.refused = error.message));
await subscribe();
await finished;
await connection.stop();
console.log(JSON.stringify({ ...heard, ...facts }));
