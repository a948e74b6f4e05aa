import mailListener from 'mail-listener5'
import nodemailer from 'nodemailer'

const { MAYFLY_MAIL_USER: user, MAYFLY_MAIL_PASSWORD: pass } = process.env
const transport = nodemailer.createTransport({ host: process.env.MAYFLY_SMTP_HOST, port: +process.env.MAYFLY_SMTP_PORT, auth: { user, pass } })
const listener = new mailListener.MailListener({
  username: user, password: pass, host: process.env.MAYFLY_IMAP_HOST, port: +process.env.MAYFLY_IMAPS_PORT, tls: true,
  mailbox: 'INBOX', searchFilter: ['UNSEEN'], markSeen: true, fetchUnreadOnStart: true,
})
listener.on('error', (error) => { console.error(error); process.exit(1) })
listener.on('mail', async (mail) => {
  const attachments = mail.attachments.map(({ filename, content }) => ({ filename: filename.toUpperCase(), content }))
  await transport.sendMail({ from: user, to: mail.replyTo?.text ?? mail.from.text, subject: 'Re: ' + mail.subject, inReplyTo: mail.messageId, text: mail.text, attachments })
})
listener.start()
