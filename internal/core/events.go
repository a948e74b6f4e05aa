package core

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// The identifiers that core hands out. They are numbers of one account's database and mean nothing outside of it. The
// contacts 1 to 9 are core's own: 1 is the account itself, 2 writes info messages, 5 is the device.
type (
	AccountID uint32
	ChatID    uint32
	MsgID     uint32
	ContactID uint32
)

// LastSpecialContact is the last ContactID that is not a person.
const LastSpecialContact ContactID = 9

// Event is something that core reports. Which fields are set depends on the kind; the others are zero. The kinds are those
// of core's EventType.
type Event struct {
	AccountID AccountID
	Kind      string

	ChatID    ChatID
	MsgID     MsgID
	ContactID ContactID
	Reaction  string // IncomingReaction
	Msg       string // Info, Warning, Error, SmtpConnected, SmtpMessageSent …: for a log
	Comment   string // ConfigureProgress
	Progress  int    // ConfigureProgress, SecurejoinInviterProgress, SecurejoinJoinerProgress: of 1000; 0 is a failure
	Serial    uint32 // WebxdcStatusUpdate
	Dropped   uint64 // EventChannelOverflow: how many events are missing

	Raw json.RawMessage // the event as core wrote it, without the account
}

// The kinds of events that Mayfly acts on.
const (
	IncomingMsg          = "IncomingMsg"
	IncomingReaction     = "IncomingReaction"
	ReactionsChanged     = "ReactionsChanged"
	MsgsChanged          = "MsgsChanged"
	MsgDelivered         = "MsgDelivered"
	MsgFailed            = "MsgFailed"
	MsgDeleted           = "MsgDeleted"
	WebxdcStatusUpdate   = "WebxdcStatusUpdate"
	InviterProgress      = "SecurejoinInviterProgress"
	JoinerProgress       = "SecurejoinJoinerProgress"
	ImapInboxIdle        = "ImapInboxIdle"
	AccountsChanged      = "AccountsChanged"
	EventChannelOverflow = "EventChannelOverflow"
)

// UnmarshalJSON reads {"contextId":1,"event":{"kind":"IncomingMsg","chatId":12,"msgId":34}}. The events of calls spell their
// fields chat_id and msg_id.
func (e *Event) UnmarshalJSON(b []byte) error {
	var outer struct {
		ContextID AccountID       `json:"contextId"`
		Event     json.RawMessage `json:"event"`
	}
	if err := json.Unmarshal(b, &outer); err != nil {
		return err
	}
	var in struct {
		Kind       string    `json:"kind"`
		ChatID     ChatID    `json:"chatId"`
		ChatIDOld  ChatID    `json:"chat_id"`
		MsgID      MsgID     `json:"msgId"`
		MsgIDOld   MsgID     `json:"msg_id"`
		ContactID  ContactID `json:"contactId"`
		Reaction   string    `json:"reaction"`
		Msg        string    `json:"msg"`
		Comment    string    `json:"comment"`
		Progress   int       `json:"progress"`
		Serial     uint32    `json:"statusUpdateSerial"`
		Overflowed uint64    `json:"n"`
	}
	if err := json.Unmarshal(outer.Event, &in); err != nil {
		return fmt.Errorf("event: %w", err)
	}
	*e = Event{
		AccountID: outer.ContextID, Kind: in.Kind, ChatID: in.ChatID | in.ChatIDOld, MsgID: in.MsgID | in.MsgIDOld,
		ContactID: in.ContactID, Reaction: in.Reaction, Msg: in.Msg, Comment: in.Comment, Progress: in.Progress,
		Serial: in.Serial, Dropped: in.Overflowed, Raw: outer.Event,
	}
	return nil
}

// Events feeds what core reports, in core's order, until the context ends or the client fails; then the channel is closed.
// Core hands out each event once and keeps those that nobody has asked for: call Events once per client. A reader that
// stops reading stops the feed, not core. What is no event fails the client.
func (c *Client) Events(ctx context.Context) <-chan Event {
	events := make(chan Event)
	go func() {
		defer close(events)
		for {
			batch, err := c.Raw(ctx, "get_next_event_batch", json.RawMessage("[]"))
			if err != nil {
				return
			}
			if err := feed(ctx, events, batch); err != nil {
				c.fail(err)
				return
			}
		}
	}()
	return events
}

// feed sends the events of a batch one by one: a hostile batch would be many times its size when it is decoded whole.
func feed(ctx context.Context, events chan<- Event, batch json.RawMessage) error {
	d := json.NewDecoder(bytes.NewReader(batch))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return fmt.Errorf("%w: a batch of events that is no list", ErrProtocol)
	}
	for d.More() {
		var e Event
		if err := d.Decode(&e); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		select {
		case events <- e:
		case <-ctx.Done():
			return nil // the next call reports it
		}
	}
	return nil
}
