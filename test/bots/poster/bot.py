import time
from threading import Thread

from deltabot_cli import BotCli
from deltachat2 import MessageData, events

EVERY = 3  # seconds

cli = BotCli("poster")


def post(bot, accid):
    for chatid in bot.rpc.get_chatlist_entries(accid, None, None, None):
        try:
            bot.rpc.send_msg(accid, chatid, MessageData(text="the news"))
        except Exception as err:
            bot.logger.warning(f"chat {chatid}: {err}")


def post_again_and_again(bot):
    while True:
        for accid in bot.rpc.get_all_account_ids():
            last = bot.rpc.get_config(accid, "ui.posted")
            if last is None or time.time() - float(last) >= EVERY:
                bot.rpc.set_config(accid, "ui.posted", str(time.time()))
                if last is not None:
                    post(bot, accid)
        time.sleep(EVERY)


@cli.on_start
def start(bot, args):
    Thread(target=post_again_and_again, args=(bot,), daemon=True).start()


@cli.on(events.NewMessage(is_info=False))
def subscribe(bot, accid, event):
    bot.rpc.send_msg(accid, event.msg.chat_id, MessageData(text="you will get the news again and again"))


if __name__ == "__main__":
    cli.start()
