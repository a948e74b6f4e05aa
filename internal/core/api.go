package core

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
)

// Transport is how core reaches its provider. There is no TLS: it is a server in our own process or on loopback.
type Transport struct {
	Addr     string
	Password string

	IMAPServer string // an IP address or name
	IMAPPort   uint16
	IMAPUser   string // left empty: the address
	SMTPServer string
	SMTPPort   uint16
	SMTPUser   string // left empty: the address
}

// MarshalJSON writes core's EnteredLoginParam.
func (t Transport) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Addr         string `json:"addr"`
		Password     string `json:"password"`
		IMAPServer   string `json:"imapServer"`
		IMAPPort     uint16 `json:"imapPort"`
		IMAPSecurity string `json:"imapSecurity"`
		IMAPUser     string `json:"imapUser,omitempty"`
		SMTPServer   string `json:"smtpServer"`
		SMTPPort     uint16 `json:"smtpPort"`
		SMTPSecurity string `json:"smtpSecurity"`
		SMTPUser     string `json:"smtpUser,omitempty"`
	}{t.Addr, t.Password, t.IMAPServer, t.IMAPPort, "plain", t.IMAPUser, t.SMTPServer, t.SMTPPort, "plain", t.SMTPUser})
}

// Message is what core knows of a message. Everything in it that came by mail is foreign.
type Message struct {
	ID            MsgID     `json:"id"`
	ChatID        ChatID    `json:"chatId"`
	FromID        ContactID `json:"fromId"`
	ParentID      MsgID     `json:"parentId"`
	Text          string    `json:"text"`
	Subject       string    `json:"subject"`
	ShowPadlock   bool      `json:"showPadlock"` // came encrypted and signed, or was sent so
	IsBot         bool      `json:"isBot"`
	IsInfo        bool      `json:"isInfo"` // written by core: "member added" and the like
	IsEdited      bool      `json:"isEdited"`
	SystemType    string    `json:"systemMessageType"`
	ViewType      string    `json:"viewType"`      // Text, Image, Gif, Sticker, Audio, Voice, Video, File, Webxdc, Vcard, Call
	DownloadState string    `json:"downloadState"` // Done, Available, InProgress, Failure, Undecipherable
	State         int       `json:"state"`         // 10 fresh, 13 noticed, 16 seen, 20 pending, 24 failed, 26 delivered, 28 read
	Timestamp     int64     `json:"timestamp"`     // as the sender says, seconds since 1970
	Received      int64     `json:"receivedTimestamp"`
	Error         string    `json:"error"`

	File      string `json:"file"` // absolute path, as core sees it; empty without an attachment
	FileName  string `json:"fileName"`
	FileMime  string `json:"fileMime"`
	FileBytes uint64 `json:"fileBytes"`

	Quote  *Quote  `json:"quote"`
	Sender Contact `json:"sender"`
}

// Quote is the message that a message answers.
type Quote struct {
	Kind      string `json:"kind"` // JustText, WithMessage
	Text      string `json:"text"`
	MessageID MsgID  `json:"messageId"` // 0 where core does not know the quoted message
}

// Authentic reports whether the message came encrypted and validly signed by a contact. Device messages show a padlock too.
func (m Message) Authentic() bool { return m.ShowPadlock && m.FromID > LastSpecialContact }

// MessageData is a message to send. Empty fields are left out.
type MessageData struct {
	Text            string `json:"text,omitempty"`
	HTML            string `json:"html,omitempty"`
	ViewType        string `json:"viewtype,omitempty"`
	File            string `json:"file,omitempty"` // a path that core can read; core copies it
	Filename        string `json:"filename,omitempty"`
	QuotedMessageID MsgID  `json:"quotedMessageId,omitempty"`
}

// Chat is what core knows of a chat. ContactIDs and the fields below it are filled by FullChat only.
type Chat struct {
	ID               ChatID `json:"id"`
	Name             string `json:"name"`
	Type             string `json:"chatType"` // Single, Group, Mailinglist, OutBroadcast, InBroadcast
	IsEncrypted      bool   `json:"isEncrypted"`
	IsContactRequest bool   `json:"isContactRequest"`
	IsDeviceChat     bool   `json:"isDeviceChat"`
	IsSelfTalk       bool   `json:"isSelfTalk"`

	ContactIDs     []ContactID `json:"contactIds"`
	PastContactIDs []ContactID `json:"pastContactIds"`
	CanSend        bool        `json:"canSend"`
	SelfInGroup    bool        `json:"selfInGroup"`
}

// Contact is what core knows of a contact.
type Contact struct {
	ID           ContactID `json:"id"`
	Address      string    `json:"address"`
	DisplayName  string    `json:"displayName"`
	Status       string    `json:"status"`       // that the contact has set
	ProfileImage string    `json:"profileImage"` // path, as core sees it; empty without one
	IsBot        bool      `json:"isBot"`
	IsBlocked    bool      `json:"isBlocked"`
	IsKeyContact bool      `json:"isKeyContact"`
	E2eeAvail    bool      `json:"e2eeAvail"`
	IsVerified   bool      `json:"isVerified"`
}

// Reactions are the reactions to a message. ByContact holds the emojis of each contact.
type Reactions struct {
	ByContact map[ContactID][]string
	Total     []Reaction
}

// Reaction is one emoji and how many contacts gave it.
type Reaction struct {
	Emoji      string `json:"emoji"`
	Count      int    `json:"count"`
	IsFromSelf bool   `json:"isFromSelf"`
}

// maxReactions bounds the JSON of Reactions, in bytes: decoded, lists of nothing are many times their size.
const maxReactions = 1 << 20

// UnmarshalJSON reads core's Reactions, whose map has numbers as names.
func (r *Reactions) UnmarshalJSON(b []byte) error {
	if len(b) > maxReactions {
		return fmt.Errorf("reactions: %d bytes are too many", len(b))
	}
	var in struct {
		ByContact map[string][]string `json:"reactionsByContact"`
		Total     []Reaction          `json:"reactions"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	r.Total, r.ByContact = in.Total, make(map[ContactID][]string, len(in.ByContact))
	for name, emojis := range in.ByContact {
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return fmt.Errorf("reactions: contact %q: %w", name, err)
		}
		r.ByContact[ContactID(id)] = emojis
	}
	return nil
}

// SystemInfo is core's description of itself; "deltachat_core_version" is "v2.62.0" and the like.
func (c *Client) SystemInfo(ctx context.Context) (map[string]string, error) {
	return call[map[string]string](ctx, c, "get_system_info")
}

// AddAccount makes a new, unconfigured account in core's folder.
func (c *Client) AddAccount(ctx context.Context) (AccountID, error) {
	return call[AccountID](ctx, c, "add_account")
}

// AccountIDs lists the accounts of core's folder.
func (c *Client) AccountIDs(ctx context.Context) ([]AccountID, error) {
	return call[[]AccountID](ctx, c, "get_all_account_ids")
}

// SelectAccount makes an account the one that an app would show.
func (c *Client) SelectAccount(ctx context.Context, acc AccountID) error {
	return c.Call(ctx, "select_account", nil, acc)
}

// SetConfig sets one configuration key; the key must be one that core knows or begin with "ui.".
func (c *Client) SetConfig(ctx context.Context, acc AccountID, key, value string) error {
	return c.Call(ctx, "set_config", nil, acc, key, value)
}

// BatchSetConfig sets several keys.
func (c *Client) BatchSetConfig(ctx context.Context, acc AccountID, config map[string]string) error {
	return c.Call(ctx, "batch_set_config", nil, acc, config)
}

// GetConfig reads one configuration key; one that is not set is empty.
func (c *Client) GetConfig(ctx context.Context, acc AccountID, key string) (string, error) {
	value, err := call[*string](ctx, c, "get_config", acc, key)
	if err != nil || value == nil {
		return "", err
	}
	return *value, nil
}

// Configure logs in to the provider and stores it in the account. It may be called again to change ports or passwords.
func (c *Client) Configure(ctx context.Context, acc AccountID, t Transport) error {
	return c.Call(ctx, "add_or_update_transport", nil, acc, t)
}

// IsConfigured reports whether the account has a provider.
func (c *Client) IsConfigured(ctx context.Context, acc AccountID) (bool, error) {
	return call[bool](ctx, c, "is_configured", acc)
}

// StartIO begins to fetch and to send mail.
func (c *Client) StartIO(ctx context.Context, acc AccountID) error {
	return c.Call(ctx, "start_io", nil, acc)
}

// StopIO ends the connections to the provider.
func (c *Client) StopIO(ctx context.Context, acc AccountID) error {
	return c.Call(ctx, "stop_io", nil, acc)
}

// Invite makes an invite link, https://i.delta.chat/#…, and the account's key if it has none. Each link has an auth token of its
// own, which the account keeps for ever: make one and store it.
func (c *Client) Invite(ctx context.Context, acc AccountID) (string, error) {
	return call[string](ctx, c, "get_chat_securejoin_qr_code", acc, nil)
}

// SecureJoin accepts an invite link. It returns at once; JoinerProgress events tell how it goes on.
func (c *Client) SecureJoin(ctx context.Context, acc AccountID, invite string) (ChatID, error) {
	return call[ChatID](ctx, c, "secure_join", acc, invite)
}

// GetMessage reads a message.
func (c *Client) GetMessage(ctx context.Context, acc AccountID, msg MsgID) (Message, error) {
	return call[Message](ctx, c, "get_message", acc, msg)
}

// SendMsg queues a message, which survives the end of core from then on, and returns its id.
func (c *Client) SendMsg(ctx context.Context, acc AccountID, chat ChatID, data MessageData) (MsgID, error) {
	return call[MsgID](ctx, c, "send_msg", acc, chat, data)
}

// SendReaction replaces the account's reactions to a message; no emoji takes them back.
func (c *Client) SendReaction(ctx context.Context, acc AccountID, msg MsgID, emojis ...string) (MsgID, error) {
	if emojis == nil {
		emojis = []string{}
	}
	return call[MsgID](ctx, c, "send_reaction", acc, msg, emojis)
}

// SendEdit replaces the text of one of the account's own messages.
func (c *Client) SendEdit(ctx context.Context, acc AccountID, msg MsgID, text string) error {
	return c.Call(ctx, "send_edit_request", nil, acc, msg, text)
}

// DeleteForAll deletes messages of the account, here and at those who got them.
func (c *Client) DeleteForAll(ctx context.Context, acc AccountID, msgs ...MsgID) error {
	return c.Call(ctx, "delete_messages_for_all", nil, acc, msgs)
}

// MarkSeen marks messages as read. With mdns_enabled it sends receipts.
func (c *Client) MarkSeen(ctx context.Context, acc AccountID, msgs ...MsgID) error {
	return c.Call(ctx, "markseen_msgs", nil, acc, msgs)
}

// MessageReactions reads the reactions to a message.
func (c *Client) MessageReactions(ctx context.Context, acc AccountID, msg MsgID) (Reactions, error) {
	return call[Reactions](ctx, c, "get_message_reactions", acc, msg)
}

// BasicChat reads a chat without its members.
func (c *Client) BasicChat(ctx context.Context, acc AccountID, chat ChatID) (Chat, error) {
	return call[Chat](ctx, c, "get_basic_chat_info", acc, chat)
}

// FullChat reads a chat with its members.
func (c *Client) FullChat(ctx context.Context, acc AccountID, chat ChatID) (Chat, error) {
	return call[Chat](ctx, c, "get_full_chat_by_id", acc, chat)
}

// ChatMessages lists the messages of a chat, oldest first.
func (c *Client) ChatMessages(ctx context.Context, acc AccountID, chat ChatID) ([]MsgID, error) {
	return call[[]MsgID](ctx, c, "get_message_ids", acc, chat, false, false)
}

// Contact reads a contact.
func (c *Client) Contact(ctx context.Context, acc AccountID, contact ContactID) (Contact, error) {
	return call[Contact](ctx, c, "get_contact", acc, contact)
}

// ContactEncryption is core's text on a contact's encryption; it states the fingerprints.
func (c *Client) ContactEncryption(ctx context.Context, acc AccountID, contact ContactID) (string, error) {
	return call[string](ctx, c, "get_contact_encryption_info", acc, contact)
}

// CreateGroup makes an encrypted group with nobody but the account in it. Nothing is sent before the first message.
func (c *Client) CreateGroup(ctx context.Context, acc AccountID, name string) (ChatID, error) {
	return call[ChatID](ctx, c, "create_group_chat", acc, name, false)
}

// AddContactToChat adds a contact to a group.
func (c *Client) AddContactToChat(ctx context.Context, acc AccountID, chat ChatID, contact ContactID) error {
	return c.Call(ctx, "add_contact_to_chat", nil, acc, chat, contact)
}

func call[T any](ctx context.Context, c *Client, method string, params ...any) (T, error) {
	var result T
	err := c.Call(ctx, method, &result, params...)
	return result, err
}
