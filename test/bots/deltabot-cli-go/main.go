// A bot that sends its app to whoever writes, and answers the app's calls.
package main

import (
	"github.com/chatmail/rpc-client-go/v2/deltachat"
	"github.com/deltachat-bot/deltabot-cli-go/v2/botcli"
	"github.com/deltachat-bot/deltabot-cli-go/v2/xdcrpc"
	"github.com/spf13/cobra"
)

// API is what the app may call.
type API struct{}

func (api *API) Echo(text string) string { return text }

func (api *API) Divide(a, b int) (int, *xdcrpc.Error) {
	if b == 0 {
		return 0, &xdcrpc.Error{Code: 1, Message: "Division by zero"}
	}
	return a / b, nil
}

func main() {
	cli := botcli.New("webxdcbot")
	cli.OnBotInit(func(cli *botcli.BotCli, bot *deltachat.Bot, cmd *cobra.Command, args []string) {
		bot.OnUnhandledEvent(func(bot *deltachat.Bot, accId uint32, event deltachat.EventType) {
			if update, ok := event.(*deltachat.EventTypeWebxdcStatusUpdate); ok {
				_ = xdcrpc.HandleMessage(bot.Rpc, accId, update.MsgId, update.StatusUpdateSerial, &API{})
			}
		})
		bot.OnNewMsg(func(bot *deltachat.Bot, accId uint32, msgId uint32) {
			msg, err := bot.Rpc.GetMessage(accId, msgId)
			if err != nil || msg.FromId <= deltachat.ContactLastSpecial {
				return
			}
			text, file := "here is "+msg.Text, "app.xdc"
			if _, err := bot.Rpc.SendMsg(accId, msg.ChatId, deltachat.MessageData{Text: &text, File: &file}); err != nil {
				cli.GetLogger(accId).Error(err)
			}
		})
	})
	cli.OnBotStart(func(cli *botcli.BotCli, bot *deltachat.Bot, cmd *cobra.Command, args []string) {
		cli.Logger.Info("the bot is about to start")
	})
	_ = cli.Start()
}
