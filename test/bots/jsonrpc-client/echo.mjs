import { startDeltaChat } from "@deltachat/stdio-rpc-server";
import { C } from "@deltachat/jsonrpc-client";

async function main() {
  const dc = startDeltaChat("deltachat-data");
  console.log(await dc.rpc.getSystemInfo());

  let firstAccount = (await dc.rpc.getAllAccounts())[0];
  if (!firstAccount) {
    firstAccount = await dc.rpc.getAccountInfo(await dc.rpc.addAccount());
  }
  if (firstAccount.kind === "Unconfigured") {
    await dc.rpc.batchSetConfig(firstAccount.id, { addr: process.env.ADDR, mail_pw: process.env.MAIL_PW, bot: "1" });
    await dc.rpc.configure(firstAccount.id);
  }

  const emitter = dc.getContextEvents(firstAccount.id);
  emitter.on("IncomingMsg", async ({ chatId, msgId }) => {
    const message = await dc.rpc.getMessage(firstAccount.id, msgId);
    if (message.fromId > C.DC_CONTACT_ID_LAST_SPECIAL) {
      await dc.rpc.miscSendTextMessage(firstAccount.id, chatId, message.text);
    }
  });
  await dc.rpc.startIo(firstAccount.id);
}

main();
