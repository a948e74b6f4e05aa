package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/gateway"
	"mayfly/internal/letter"
	"mayfly/internal/minirelay"
)

// post makes messages of what a bot submits by SMTP, through the gateway, with all its rules.
type post struct {
	ctx      context.Context // of the run
	g        *gateway.Gateway
	files    *filed
	limits   letter.Limits
	occasion occasion
	chat     string      // the type of the run's chat
	sender   bot.Address // who wrote the run's message

	mu    sync.Mutex
	chats map[bot.Address]uint32 // of the recipients that were accepted
}

// A chat has an address, for groups and channels: nobody can have it (RFC 2606), and it goes no further than this host.
const (
	chatLocal  = "chat-"
	chatDomain = "mayfly.invalid"
)

func addressOf(chat core.ChatID) string {
	return chatLocal + strconv.FormatUint(uint64(chat), 10) + "@" + chatDomain
}

// Recipient implements minirelay.Submission.
func (s *post) Recipient(to bot.Address) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.chats[to]; known {
		return nil
	}
	chat, err := s.find(to)
	if err == nil {
		err = s.g.MaySend(s.ctx, chat)
	}
	if err != nil {
		return refusalOf(err, unknownRecipient())
	}
	s.chats[to] = chat
	return nil
}

// find returns the chat that an address stands for.
func (s *post) find(to bot.Address) (uint32, error) {
	if to.Domain() == chatDomain {
		id, err := strconv.ParseUint(strings.TrimPrefix(to.Local(), chatLocal), 10, 32)
		if err != nil {
			return 0, &minirelay.Refusal{Code: 550, Enhanced: [3]int{5, 1, 1}, Reason: "No chat has this address: use the Reply-To of a mail"}
		}
		return uint32(id), nil
	}
	contact := uint32(s.occasion.msg.FromID)
	if to != s.sender {
		var err error
		if contact, err = s.ask("lookup_contact_id_by_addr", string(to)); err != nil {
			return 0, err
		}
	} else if s.chat == single {
		return uint32(s.occasion.msg.ChatID), nil
	}
	chat := uint32(0)
	if contact != 0 {
		var err error
		if chat, err = s.ask("get_chat_id_by_contact_id", contact); err != nil {
			return 0, err
		}
	}
	if chat == 0 {
		return 0, &minirelay.Refusal{Code: 550, Enhanced: [3]int{5, 7, 1},
			Reason: fmt.Sprintf("%s has not written to the bot: a bot writes only to those who wrote to it", to)}
	}
	return chat, nil
}

// ask gets an id from core; 0 for null.
func (s *post) ask(method string, param any) (uint32, error) {
	raw, err := s.g.Call(s.ctx, method, s.g.Account(), param)
	if err != nil {
		return 0, err
	}
	var id *uint32
	if err := json.Unmarshal(raw, &id); err != nil {
		return 0, fmt.Errorf("%s: core's answer is no id", method)
	}
	if id == nil {
		return 0, nil
	}
	return *id, nil
}

// Submit implements minirelay.Submission. Each file is a message, the first with the text.
func (s *post) Submit(mail minirelay.Outgoing) error {
	read, err := letter.Read(mail.Data, s.limits)
	if err != nil {
		return refusalOf(err, unreadable())
	}
	defer s.files.forget()
	messages := s.messages(read)
	sent := 0
	chats := s.chatsOf(mail.To)
	for _, chat := range chats {
		for i, m := range messages {
			if i == 0 && slices.Contains(read.InReplyTo, s.occasion.id) && chat == uint32(s.occasion.msg.ChatID) {
				m.QuotedMessageID = s.occasion.msg.ID
			}
			if _, err := s.g.Call(s.ctx, "send_msg", s.g.Account(), chat, m); err != nil {
				return refusalOf(fmt.Errorf("%w (%d of %d messages were sent)", err, sent, len(messages)*len(chats)), unreadable())
			}
			sent++
		}
	}
	return nil
}

func (s *post) messages(read letter.Letter) []core.MessageData {
	messages := []core.MessageData{{Text: read.Text, HTML: read.HTML}}
	for i, f := range read.Files {
		if i > 0 {
			messages = append(messages, core.MessageData{})
		}
		messages[i].File, messages[i].Filename = s.files.add(f.Data), f.Name
	}
	return messages
}

// chatsOf are those of recipients, each once.
func (s *post) chatsOf(to []bot.Address) []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var chats []uint32
	for _, address := range to {
		if chat := s.chats[address]; !slices.Contains(chats, chat) {
			chats = append(chats, chat)
		}
	}
	return chats
}

// What is said of an address, or of a mail, where nothing else is known.
func unknownRecipient() minirelay.Refusal {
	return minirelay.Refusal{Code: 550, Enhanced: [3]int{5, 1, 1}}
}

func unreadable() minirelay.Refusal { return minirelay.Refusal{Code: 554, Enhanced: [3]int{5, 6, 0}} }

// refusalOf says by SMTP why something was not taken. None is for a while: a run has one try.
func refusalOf(err error, r minirelay.Refusal) error {
	var already *minirelay.Refusal
	var refused *gateway.Error
	r.Reason = err.Error()
	switch {
	case errors.As(err, &already):
		return err
	case errors.Is(err, letter.ErrTooMuch), errors.As(err, &refused) && refused.Code == gateway.CodeLimit:
		r.Code, r.Enhanced = 552, [3]int{5, 3, 4}
	case refused != nil && refused.Code == gateway.CodeRefused:
		r.Code, r.Enhanced = 550, [3]int{5, 7, 1}
	}
	return &r
}

// filed holds the files of the mail that is being submitted, for the gateway to take.
type filed struct {
	core interface {
		PutFile(name string, size int64, r io.Reader) error
	}

	mu    sync.Mutex
	files map[string][]byte
	names int // of this run
	taken int
}

// filedDir is no folder of any sandbox: the gateway fetches what it names from here.
const filedDir = "/mail/"

func (f *filed) add(data []byte) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files == nil {
		f.files = map[string][]byte{}
	}
	f.names++
	name := filedDir + strconv.Itoa(f.names)
	f.files[name] = data
	return name
}

func (f *filed) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files = nil
}

// Take implements gateway.Files.
func (f *filed) Take(ctx context.Context, name, _ string, max int64) (string, int64, error) {
	if err := ctx.Err(); err != nil {
		return "", 0, err
	}
	f.mu.Lock()
	data, found := f.files[name]
	f.taken++
	target, size := fmt.Sprintf("%s/%d", filesDir, f.taken), int64(len(data))
	f.mu.Unlock()
	switch {
	case !found:
		return "", 0, errors.New("it is not in the mail")
	case size > max:
		return "", 0, &gateway.Error{Code: gateway.CodeLimit, Message: fmt.Sprintf("it has %d bytes, at most %d may be sent", size, max)}
	}
	return target, size, f.core.PutFile(target, size, bytes.NewReader(data))
}

// Show implements gateway.Files: the bot sees no path of core's.
func (f *filed) Show(string) (string, bool) { return "", false }
