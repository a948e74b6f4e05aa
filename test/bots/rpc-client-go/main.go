// An echo bot.
package main

import (
	"context"
	"log"
	"os"

	"github.com/chatmail/rpc-client-go/v2/deltachat"
)

func main() {
	trans := deltachat.NewIOTransport()
	if err := trans.Open(); err != nil {
		log.Fatalln(err)
	}
	defer trans.Close()
	rpc := &deltachat.Rpc{Context: context.Background(), Transport: trans}
	info, err := rpc.GetSystemInfo()
	if err != nil {
		log.Fatalln(err)
	}
	log.Println("core", info["deltachat_core_version"])

	bot := deltachat.NewBot(rpc)
	accounts, err := rpc.GetAllAccountIds()
	if err != nil || len(accounts) == 0 {
		log.Fatalln("no account", err)
	}
	account := accounts[0]
	bot.On(&deltachat.EventTypeInfo{}, func(bot *deltachat.Bot, accId uint32, event deltachat.EventType) {
		log.Println("INFO:", event.(*deltachat.EventTypeInfo).Msg)
	})
	bot.OnNewMsg(func(bot *deltachat.Bot, accId uint32, msgId uint32) {
		msg, err := bot.Rpc.GetMessage(accId, msgId)
		if err != nil || msg.FromId <= deltachat.ContactLastSpecial {
			return
		}
		if _, err := bot.Rpc.SendMsg(accId, msg.ChatId, deltachat.MessageData{Text: &msg.Text}); err != nil {
			log.Println("ERROR:", err)
		}
	})
	if configured, _ := rpc.IsConfigured(account); !configured {
		flag := "1"
		if err := rpc.SetConfig(account, "bot", &flag); err != nil {
			log.Fatalln(err)
		}
		if err := rpc.AddTransportFromQr(account, os.Args[1]); err != nil {
			log.Fatalln(err)
		}
	}
	link, _ := rpc.GetChatSecurejoinQrCode(account, nil)
	log.Println("listening at", link)
	if err := bot.Run(); err != nil {
		log.Fatalln(err)
	}
}
