from deltachat2 import MessageData, events
from deltabot_cli import BotCli

cli = BotCli("echobot")


@cli.on(events.RawEvent)
def log_event(bot, accid, event):
    bot.logger.info(event)


@cli.on(events.NewMessage(command="/cat"))
def cat(bot, accid, event):
    msg = event.msg
    reply = MessageData(text="meow", file="cat.png", quoted_message_id=msg.id)
    bot.rpc.send_msg(accid, msg.chat_id, reply)


@cli.on(events.NewMessage(is_info=False))
def echo(bot, accid, event):
    if bot.has_command(event.command):
        return
    msg = event.msg
    bot.rpc.send_msg(accid, msg.chat_id, MessageData(text=msg.text))


if __name__ == "__main__":
    cli.start()
