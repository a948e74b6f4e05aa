import os, smtplib
from email.message import EmailMessage
from imap_tools import AND, MailBox

user, password = os.environ["MAYFLY_MAIL_USER"], os.environ["MAYFLY_MAIL_PASSWORD"]
with MailBox("localhost").login(user, password, "INBOX") as mailbox:
    while True:
        for mail in mailbox.fetch(AND(seen=False)):
            reply = EmailMessage()
            reply["From"], reply["To"], reply["Subject"] = user, mail.from_, "Re: " + mail.subject
            reply.set_content("%s, %d files" % (mail.text.strip(), len(mail.attachments)))
            reply.add_alternative("<b>%s</b>" % mail.text.strip(), subtype="html")
            with smtplib.SMTP_SSL("localhost") as smtp:
                smtp.login(user, password)
                smtp.send_message(reply)
            if not mailbox.folder.exists("Done"):
                mailbox.folder.create("Done")
            mailbox.move(mail.uid, "Done")
        mailbox.idle.wait(timeout=60)
