package gateway

// action is what the gateway does with a call.
type action int

const (
	refuse  action = iota // the default, also for every method that is not in the table
	forward               // checked, then handed to core
)

// kind is what one positional parameter must be.
type kind int

const (
	kindAccount  kind = iota // the bot's own account, whatever id it names
	kindID                   // an id of a chat, message or contact in that account
	kindIDs                  // a list of them
	kindSendChat             // a chat that the bot may write to in this run
	kindSendMsg              // a message in such a chat
	kindText                 // a string of at most Limits.Text bytes
	kindTexts                // a short list of short strings
	kindOwnMsgs              // a list of messages in such chats
	kindMessage              // MessageData: the message to send, with its file
)

// row is the policy of one method.
type row struct {
	method string
	action action
	params []kind
	sends  bool   // counts as one message sent
	reason string // for refuse: why, and what to do instead
}

// policy is the table: what is not here is refused. Core's specification (deltachat-rpc-server --openrpc) gives the names and
// the order of parameters.
func policy() map[string]row {
	rows := []row{
		{method: "get_message", action: forward, params: []kind{kindAccount, kindID}},
		{method: "get_messages", action: forward, params: []kind{kindAccount, kindIDs}},
		{method: "get_message_reactions", action: forward, params: []kind{kindAccount, kindID}},
		{method: "get_basic_chat_info", action: forward, params: []kind{kindAccount, kindID}},
		{method: "get_full_chat_by_id", action: forward, params: []kind{kindAccount, kindID}},
		{method: "get_chat_contacts", action: forward, params: []kind{kindAccount, kindID}},
		{method: "get_contact", action: forward, params: []kind{kindAccount, kindID}},
		{method: "get_contacts_by_ids", action: forward, params: []kind{kindAccount, kindIDs}},
		{method: "can_send", action: forward, params: []kind{kindAccount, kindID}},
		{method: "send_msg", action: forward, params: []kind{kindAccount, kindSendChat, kindMessage}, sends: true},
		{method: "misc_send_text_message", action: forward, params: []kind{kindAccount, kindSendChat, kindText}, sends: true},
		{method: "send_reaction", action: forward, params: []kind{kindAccount, kindSendMsg, kindTexts}, sends: true},
		{method: "delete_messages_for_all", action: forward, params: []kind{kindAccount, kindOwnMsgs}, sends: true},
		{method: "send_edit_request", action: forward, params: []kind{kindAccount, kindSendMsg, kindText}, sends: true},
		{method: "get_webxdc_status_updates", action: forward, params: []kind{kindAccount, kindID, kindID}},
		{method: "send_webxdc_status_update", action: forward, params: []kind{kindAccount, kindSendMsg, kindText, kindText}, sends: true},
	}
	secret := "it would show the account's password, keys or server to the bot"
	authority := "the host owns the account: set the name, icon and commands in bot.toml"
	for _, refusal := range []struct {
		reason  string
		methods []string
	}{
		{secret, []string{"get_config", "batch_get_config", "get_info", "list_transports", "export_backup", "export_self_keys", "get_backup", "get_backup_qr", "provide_backup"}},
		{authority, []string{"set_config", "batch_set_config", "add_or_update_transport", "add_transport_from_qr", "delete_transport", "configure", "add_account", "remove_account", "select_account", "start_io", "stop_io", "start_io_for_all_accounts", "stop_io_for_all_accounts", "import_backup", "import_self_keys"}},
		{"a bot writes only to those who wrote to it: share the invite link of the bot instead", []string{"secure_join", "create_contact", "create_chat_by_contact_id", "import_vcard", "import_vcard_contents"}},
		{"events are handed to the handlers of the script: export message or webxdc", []string{"get_next_event", "get_next_event_batch", "get_next_msgs", "wait_next_msgs"}},
		{"the network is reached through the origins that the operator granted", []string{"get_http_response"}},
	} {
		for _, m := range refusal.methods {
			rows = append(rows, row{method: m, reason: refusal.reason})
		}
	}
	table := make(map[string]row, len(rows))
	for _, r := range rows {
		table[r.method] = r
	}
	return table
}
