#!/usr/bin/env python3
"""Echo bot that answers commands in groups.

Pass --help to the CLI to see available options.
"""

from deltachat_rpc_client import events, run_bot_cli

hooks = events.HookCollection()


@hooks.on(events.RawEvent)
def log_event(event):
    print(event)


@hooks.on(events.NewMessage(command="/who"))
def who(event):
    snapshot = event.message_snapshot
    chat = snapshot.chat
    info = chat.get_full_snapshot()
    chat.send_text(f"{snapshot.sender.get_snapshot().display_name} asked in {info.name}, which has {len(info.contact_ids)} members")


@hooks.on(events.NewMessage(is_info=False, func=lambda e: not e.command))
def echo(event):
    snapshot = event.message_snapshot
    if snapshot.text or snapshot.file:
        snapshot.chat.send_message(text=snapshot.text, file=snapshot.file)


if __name__ == "__main__":
    run_bot_cli(hooks=hooks)
