"""Installs a bot from a folder by one IMAP APPEND, with nothing but Python's standard library.

usage: install.py HOST PORT ADDRESS PASSWORD FOLDER

FOLDER is the bot's, with bot.toml in it. The connection is made without TLS, for a relay on this machine.
"""

import imaplib
import mimetypes
import pathlib
import sys
from email.message import EmailMessage
from email.policy import SMTP


def compose(address, folder):
    """Return a message with the files of a folder attached singly."""
    message = EmailMessage(policy=SMTP)
    message["From"] = address
    message["To"] = address
    message["Subject"] = "my bot"
    message.set_content("The bot is attached.")
    for path in sorted(folder.iterdir()):
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        maintype, subtype = kind.split("/")
        message.add_attachment(path.read_bytes(), maintype=maintype, subtype=subtype, filename=path.name)
    return message


def main(host, port, address, password, folder):
    with imaplib.IMAP4(host, int(port)) as relay:
        relay.login(address, password)
        relay.create("Bot")  # refused where it is there already, which does no harm
        kind, answer = relay.append("Bot", None, None, compose(address, pathlib.Path(folder)).as_bytes())
        if kind != "OK":
            sys.exit(f"the relay did not take the message: {answer}")


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
