export default {
  async message(msg) {
    if (!msg.file) return msg.text
    const { name, mime } = msg.file
    await msg.reply({ text: msg.text, file: { name, type: mime, data: await msg.file.bytes() } })
  },
}
