import { ImapFlow } from 'imapflow'
import nodemailer from 'nodemailer'

const auth = { user: process.env.MAYFLY_MAIL_USER, pass: process.env.MAYFLY_MAIL_PASSWORD }
const transport = nodemailer.createTransport({ host: process.env.MAYFLY_SMTP_HOST, port: +process.env.MAYFLY_SMTPS_PORT, secure: true, auth })
const client = new ImapFlow({ host: process.env.MAYFLY_IMAP_HOST, port: +process.env.MAYFLY_IMAP_PORT, auth, logger: false })

// Only what arrives while it watches.
await client.connect()
await client.mailboxOpen('INBOX')
client.on('exists', async () => {
  for await (const mail of client.fetch({ seen: false }, { uid: true, envelope: true, bodyStructure: true, bodyParts: ['1'] })) {
    const said = mail.bodyParts.get('1').toString().trim()
    const parts = mail.bodyStructure.childNodes?.map((part) => part.type) ?? [mail.bodyStructure.type]
    await transport.sendMail({ from: auth.user, to: mail.envelope.from[0].address, subject: 'Re: ' + mail.envelope.subject, text: `${said} (${parts})` })
  }
  await client.messageFlagsAdd('1:*', ['\\Seen'])
})
await client.idle()
