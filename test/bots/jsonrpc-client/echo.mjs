import { startDeltaChat } from "@deltachat/stdio-rpc-server";
import { C } from "@deltachat/jsonrpc-client";

// A counter: /play sends the app, and each click, which is a status update, is counted in the draft of the chat.
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
  const id = firstAccount.id;

  const emitter = dc.getContextEvents(id);
  emitter.on("IncomingMsg", async ({ chatId, msgId }) => {
    const message = await dc.rpc.getMessage(id, msgId);
    if (message.fromId <= C.DC_CONTACT_ID_LAST_SPECIAL) return;
    if (message.text === "/play") {
      await dc.rpc.miscSendMsg(id, chatId, "click!", "app.xdc", null, null, null);
    } else {
      await dc.rpc.miscSendTextMessage(id, chatId, message.text);
    }
  });
  emitter.on("WebxdcStatusUpdate", async ({ msgId, statusUpdateSerial }) => {
    const [update] = JSON.parse(await dc.rpc.getWebxdcStatusUpdates(id, msgId, statusUpdateSerial - 1));
    if (!update?.payload?.click) return;
    const { chatId } = await dc.rpc.getMessage(id, msgId);
    const draft = await dc.rpc.getDraft(id, chatId);
    const clicks = Number(draft?.text ?? 0) + update.payload.click;
    await dc.rpc.miscSetDraft(id, chatId, String(clicks), null, null, null, null);
    await dc.rpc.sendWebxdcStatusUpdate(id, msgId, JSON.stringify({ payload: { clicks } }), "");
  });
  await dc.rpc.startIo(id);
}

main();
