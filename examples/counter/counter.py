"""Counts words. The message comes on stdin as a mail, what is printed is the reply, and $HOME is what the bot remembers."""

import email
import email.policy
import json
import os
import pathlib
import sys

mail = email.message_from_binary_file(sys.stdin.buffer, policy=email.policy.default)
text = mail.get_body(("plain",)).get_content().strip()

memory = pathlib.Path.home() / (os.environ["MAYFLY_CHAT_ID"] + ".json")
counts = json.loads(memory.read_text()) if memory.exists() else {}

for attachment in mail.iter_attachments():
    print(f"{attachment.get_filename()} has {len(attachment.get_content())} bytes.")
for word in text.split():
    counts[word] = counts.get(word, 0) + 1
    print(f"{word}: {counts[word]}")

memory.write_text(json.dumps(counts))
