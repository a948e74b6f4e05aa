package gateway

import (
	"context"
	"encoding/json"
)

// action is what the gateway does with a call.
type action int

const (
	refuse  action = iota // the default, also for every method that is not in the table
	forward               // checked, then handed to core
	answer                // checked, then answered by the gateway, which may ask core for it
	ignore                // answered with null: what it is for is the host's, or is done already
)

// kind is what one positional parameter must be.
type kind int

const (
	kindAccount    kind = iota // the bot's own account, whatever id it names
	kindID                     // an id of a chat, message or contact in that account
	kindIDs                    // a list of at most 100 of them
	kindFlag                   // true or false
	kindNumber                 // a 64-bit integer
	kindSeconds                // a number, such as 0.5
	kindText                   // a string of at most Limits.Text bytes
	kindName                   // a string of at most 300 bytes
	kindTexts                  // a short list of short strings
	kindKeys                   // a list of names of configuration keys that may be read
	kindConfig                 // configuration keys and their values
	kindQR                     // a text to make a QR code of
	kindOwnQR                  // an invite link of the bot's own
	kindSendChat               // a chat that the bot may write to in this run
	kindSendMsg                // a message in such a chat
	kindOwnMsgs                // a list of at most 20 messages in such chats
	kindForward                // a list of at most 20 messages in any chat
	kindConsenting             // a contact that has consented to be written to
	kindFile                   // a path in the bot's sandbox, which becomes that of core's private copy
	kindUnpacked               // likewise, of at most maxUnpacked bytes: core has to take it apart
	kindFileName               // the name that such a file gets
	kindMessage                // MessageData: the message to send, with its file
	kindViewtype               // a name of core's Viewtype
	kindSendType               // likewise, of those that a bot may send
	kindState                  // as kindText, counted as kept for the bot
	kindVisibility             // Normal, Archived or Pinned
	kindMute                   // core's MuteDuration
	kindNothing                // null

	nullable kind = 1 << 8 // or null
)

// row is the policy of one method.
type row struct {
	method  string
	action  action
	params  []kind
	sends   bool   // counts as one message sent
	message bool   // its result is the id of a message that the bot has sent
	waits   bool   // is answered when there is something to say: it is neither counted nor work
	reason  string // for refuse: why, and what to do instead
	answer  func(*Gateway, context.Context, []json.RawMessage) (any, error)
}

// policy is the table, one row for each method of core 2.62: what is not here is refused. Core's specification
// (deltachat-rpc-server --openrpc) gives the names and the order of parameters.
func policy() map[string]row {
	table := map[string]row{}
	for _, group := range [][]row{
		eventRows(), accountRows(), configRows(), readRows(), sendRows(), chatRows(), contactRows(), webxdcRows(), refusedRows(),
	} {
		for _, r := range group {
			table[r.method] = r
		}
	}
	return table
}

func kinds(of ...kind) []kind { return of }

// eventRows are what a resident bot learns of its message by. A script has handlers instead.
func eventRows() []row {
	return []row{
		{method: "get_next_event", action: answer, waits: true, answer: (*Gateway).nextEvent},
		{method: "get_next_event_batch", action: answer, waits: true, answer: (*Gateway).nextEvents},
		{method: "wait_next_msgs", action: answer, waits: true, params: kinds(kindAccount), answer: (*Gateway).waitMessages},
		{method: "get_next_msgs", action: answer, params: kinds(kindAccount), answer: (*Gateway).nextMessages},
		{method: "get_fresh_msgs", action: answer, params: kinds(kindAccount), answer: (*Gateway).nextMessages},
		{method: "get_fresh_msg_cnt", action: answer, params: kinds(kindAccount, kindID), answer: (*Gateway).countFresh},
		{method: "markseen_msgs", action: answer, params: kinds(kindAccount, kindIDs), answer: (*Gateway).markSeen},
		{method: "start_io", action: answer, params: kinds(kindAccount), answer: (*Gateway).startIO},
		{method: "start_io_for_all_accounts", action: answer, answer: (*Gateway).startIO},
		{method: "stop_io", action: ignore}, // the host owns the connections
		{method: "stop_io_for_all_accounts", action: ignore},
		{method: "maybe_network", action: ignore},
		{method: "background_fetch", action: ignore},
		{method: "stop_background_fetch", action: ignore},
		{method: "wait_for_all_work_done", action: ignore},
	}
}

// accountRows show one account, which is configured.
func accountRows() []row {
	return []row{
		{method: "get_all_account_ids", action: answer, answer: (*Gateway).accountIDs},
		{method: "get_all_accounts", action: answer, answer: (*Gateway).accounts},
		{method: "get_account_info", action: forward, params: kinds(kindAccount)},
		{method: "get_selected_account_id", action: answer, answer: (*Gateway).selectedAccount},
		{method: "select_account", action: ignore},
		{method: "set_accounts_order", action: ignore},
		{method: "is_configured", action: answer, params: kinds(kindAccount), answer: constant(true)},
		{method: "is_sending_finished", action: answer, answer: constant(true)},
		{method: "get_connectivity", action: answer, params: kinds(kindAccount), answer: constant(connected)},
		{method: "get_connectivity_html", action: answer, params: kinds(kindAccount), answer: constant("<p>Connected</p>")},
		{method: "get_migration_error", action: answer, params: kinds(kindAccount), answer: constant(nil)},
		{method: "get_system_info", action: answer, answer: (*Gateway).systemInfo},
		{method: "get_info", action: answer, params: kinds(kindAccount), answer: (*Gateway).info},
		{method: "get_account_file_size", action: forward, params: kinds(kindAccount)},
		{method: "estimate_auto_deletion_count", action: forward, params: kinds(kindAccount, kindFlag, kindNumber)},
		{method: "check_email_validity", action: forward, params: kinds(kindName)},
		{method: "sleep", action: answer, params: kinds(kindSeconds), answer: (*Gateway).sleep},
		{method: "set_stock_strings", action: ignore},
		{method: "stop_ongoing_process", action: ignore},
		{method: "get_blob_dir", action: answer, params: kinds(kindAccount), answer: (*Gateway).blobDir},
		{method: "copy_to_blob_dir", action: answer, params: kinds(kindAccount, kindText), answer: (*Gateway).copyToBlobDir},
	}
}

// configRows: which keys may be read and written is in config.go.
func configRows() []row {
	return []row{
		{method: "get_config", action: answer, params: kinds(kindAccount, kindName), answer: (*Gateway).getConfig},
		{method: "batch_get_config", action: forward, params: kinds(kindAccount, kindKeys)},
		{method: "get_all_ui_config_keys", action: forward, params: kinds(kindAccount)},
		{method: "set_config", action: answer, params: kinds(kindAccount, kindName, kindText|nullable), answer: (*Gateway).setConfig},
		{method: "batch_set_config", action: answer, params: kinds(kindAccount, kindConfig), answer: (*Gateway).batchSetConfig},
	}
}

func readRows() []row {
	return []row{
		{method: "get_message", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_messages", action: forward, params: kinds(kindAccount, kindIDs)},
		{method: "get_message_ids", action: forward, params: kinds(kindAccount, kindID, kindFlag, kindFlag)},
		{method: "get_message_list_items", action: forward, params: kinds(kindAccount, kindID, kindFlag, kindFlag)},
		{method: "get_message_html", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_message_notification_info", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_existing_msg_ids", action: forward, params: kinds(kindAccount, kindIDs)},
		{method: "get_first_unread_message_of_chat", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_message_reactions", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_message_read_receipts", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_message_read_receipt_count", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_pinned_messages", action: forward, params: kinds(kindAccount, kindID)},
		{method: "search_messages", action: forward, params: kinds(kindAccount, kindName, kindID|nullable)},
		{method: "message_ids_to_search_results", action: forward, params: kinds(kindAccount, kindIDs)},
		{method: "marknoticed_chat", action: forward, params: kinds(kindAccount, kindID)},
		{method: "marknoticed_all_chats", action: forward, params: kinds(kindAccount)},
		{method: "markfresh_chat", action: forward, params: kinds(kindAccount, kindID)},
		{method: "download_full_message", action: ignore}, // the host has it whole, or never will
	}
}

func sendRows() []row {
	return []row{
		{method: "send_msg", action: forward, params: kinds(kindAccount, kindSendChat, kindMessage), sends: true, message: true},
		{method: "misc_send_msg", action: answer, sends: true, answer: (*Gateway).miscSend, params: kinds(kindAccount, kindSendChat,
			kindText|nullable, kindFile|nullable, kindFileName|nullable, kindNothing, kindID|nullable)},
		{method: "misc_send_text_message", action: forward, params: kinds(kindAccount, kindSendChat, kindText), sends: true, message: true},
		{method: "send_sticker", action: forward, params: kinds(kindAccount, kindSendChat, kindUnpacked), sends: true, message: true},
		{method: "send_reaction", action: forward, params: kinds(kindAccount, kindSendMsg, kindTexts), sends: true, message: true},
		{method: "send_edit_request", action: forward, params: kinds(kindAccount, kindSendMsg, kindText), sends: true},
		{method: "resend_messages", action: forward, params: kinds(kindAccount, kindOwnMsgs), sends: true},
		{method: "forward_messages", action: forward, params: kinds(kindAccount, kindForward, kindSendChat), sends: true},
		{method: "delete_messages", action: forward, params: kinds(kindAccount, kindIDs)},
		{method: "delete_messages_for_all", action: forward, params: kinds(kindAccount, kindOwnMsgs), sends: true},
		{method: "set_pinned_message_state", action: forward, params: kinds(kindAccount, kindSendMsg, kindFlag), sends: true},
		{method: "get_draft", action: forward, params: kinds(kindAccount, kindID)},
		{method: "remove_draft", action: forward, params: kinds(kindAccount, kindID)},
		{method: "misc_set_draft", action: forward, params: kinds(kindAccount, kindID, kindState|nullable, kindFile|nullable,
			kindFileName|nullable, kindID|nullable, kindSendType|nullable)},
		{method: "misc_send_draft", action: forward, params: kinds(kindAccount, kindSendChat), sends: true, message: true},
	}
}

func chatRows() []row {
	return []row{
		{method: "get_chatlist_entries", action: forward, params: kinds(kindAccount, kindID|nullable, kindName|nullable, kindID|nullable)},
		{method: "get_chatlist_items_by_entries", action: forward, params: kinds(kindAccount, kindIDs)},
		{method: "get_similar_chat_ids", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_full_chat_by_id", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_basic_chat_info", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_chat_contacts", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_past_chat_contacts", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_chat_media", action: forward, params: kinds(kindAccount, kindID|nullable, kindViewtype, kindViewtype|nullable, kindViewtype|nullable)},
		{method: "get_chat_id_by_contact_id", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_chat_encryption_info", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_chat_description", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_chat_ephemeral_timer", action: forward, params: kinds(kindAccount, kindID)},
		{method: "can_send", action: forward, params: kinds(kindAccount, kindID)},
		{method: "is_chat_muted", action: forward, params: kinds(kindAccount, kindID)},
		{method: "accept_chat", action: forward, params: kinds(kindAccount, kindID)},
		{method: "block_chat", action: forward, params: kinds(kindAccount, kindID)},
		{method: "delete_chat", action: forward, params: kinds(kindAccount, kindID)},
		{method: "set_chat_visibility", action: forward, params: kinds(kindAccount, kindID, kindVisibility)},
		{method: "set_chat_mute_duration", action: forward, params: kinds(kindAccount, kindID, kindMute)},
		{method: "leave_group", action: forward, params: kinds(kindAccount, kindSendChat), sends: true},
		{method: "set_chat_name", action: forward, params: kinds(kindAccount, kindSendChat, kindName), sends: true},
		{method: "set_chat_description", action: forward, params: kinds(kindAccount, kindSendChat, kindText), sends: true},
		{method: "set_chat_profile_image", action: forward, params: kinds(kindAccount, kindSendChat, kindUnpacked|nullable), sends: true},
		{method: "set_chat_ephemeral_timer", action: forward, params: kinds(kindAccount, kindSendChat, kindID), sends: true},
		{method: "create_group_chat", action: forward, params: kinds(kindAccount, kindName, kindFlag), sends: true},
		{method: "create_broadcast", action: forward, params: kinds(kindAccount, kindName), sends: true},
		{method: "create_broadcast_list", action: forward, params: kinds(kindAccount), sends: true},
		{method: "add_contact_to_chat", action: forward, params: kinds(kindAccount, kindSendChat, kindConsenting), sends: true},
		{method: "remove_contact_from_chat", action: forward, params: kinds(kindAccount, kindSendChat, kindID), sends: true},
		{method: "get_chat_securejoin_qr_code", action: answer, params: kinds(kindAccount, kindSendChat|nullable), answer: (*Gateway).invite},
		{method: "get_chat_securejoin_qr_code_svg", action: answer, params: kinds(kindAccount, kindSendChat|nullable), answer: (*Gateway).inviteSVG},
		{method: "create_qr_svg", action: forward, params: kinds(kindQR)},
		{method: "check_qr", action: forward, params: kinds(kindAccount, kindOwnQR)},
	}
}

func contactRows() []row {
	return []row{
		{method: "get_contact", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_contacts", action: forward, params: kinds(kindAccount, kindID, kindName|nullable)},
		{method: "get_contact_ids", action: forward, params: kinds(kindAccount, kindID, kindName|nullable)},
		{method: "get_contacts_by_ids", action: forward, params: kinds(kindAccount, kindIDs)},
		{method: "get_blocked_contacts", action: forward, params: kinds(kindAccount)},
		{method: "get_contact_encryption_info", action: forward, params: kinds(kindAccount, kindID)},
		{method: "lookup_contact_id_by_addr", action: forward, params: kinds(kindAccount, kindName)},
		{method: "create_chat_by_contact_id", action: forward, params: kinds(kindAccount, kindID)},
		{method: "change_contact_name", action: forward, params: kinds(kindAccount, kindID, kindName)},
		{method: "block_contact", action: forward, params: kinds(kindAccount, kindID)},
		{method: "unblock_contact", action: forward, params: kinds(kindAccount, kindID)},
		{method: "delete_contact", action: forward, params: kinds(kindAccount, kindID)},
		{method: "make_vcard", action: forward, params: kinds(kindAccount, kindIDs)},
		{method: "parse_vcard", action: forward, params: kinds(kindUnpacked)},
	}
}

func webxdcRows() []row {
	return []row{
		{method: "get_webxdc_status_updates", action: forward, params: kinds(kindAccount, kindID, kindID)},
		{method: "get_webxdc_info", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_webxdc_href", action: forward, params: kinds(kindAccount, kindID)},
		{method: "get_webxdc_blob", action: forward, params: kinds(kindAccount, kindID, kindName)},
		{method: "send_webxdc_status_update", action: forward, params: kinds(kindAccount, kindSendMsg, kindText, kindText|nullable), sends: true},
	}
}

// refusedRows are the methods that no bot may call. Each reason says what to do instead.
func refusedRows() []row {
	var rows []row
	for _, refusal := range []struct {
		reason  string
		methods []string
	}{
		{"it would show the account's password, keys or server to the bot: the host keeps them, and moves accounts with their keys when it is asked to",
			[]string{"list_transports", "export_backup", "export_self_keys", "get_backup", "get_backup_qr", "get_backup_qr_svg", "provide_backup",
				"import_backup", "import_self_keys"}},
		{"the host owns the account, which is configured already: set the name, icon and commands in bot.toml",
			[]string{"add_or_update_transport", "add_transport", "add_transport_from_qr", "init_transports", "delete_transport", "configure",
				"set_config_from_qr", "add_account", "remove_account", "migrate_account"}},
		{"a bot writes only to those who wrote to it: share the invite link of the bot instead",
			[]string{"secure_join", "secure_join_with_ux_info", "create_contact", "import_vcard", "import_vcard_contents", "create_group_chat_unencrypted"}},
		{"it names servers and the host's files: get_message and get_message_read_receipts have what there is to know of a message",
			[]string{"get_message_info", "get_message_info_object", "get_storage_usage_report_string"}},
		{"core's files are not the bot's: the attachment of the message that woke the bot is at the path that get_message names, copy it from there",
			[]string{"save_msg_file"}},
		{"the bot has no collection of stickers: send_sticker takes a file of its own",
			[]string{"misc_get_sticker_folder", "misc_save_sticker", "misc_get_stickers"}},
		{"the bot has one account: use forward_messages", []string{"forward_messages_to_account"}},
		{"nobody reads the chat of a bot's own: keep what lasts in drafts, in ui.* keys or in the bot's folder",
			[]string{"save_msgs", "add_device_message"}},
		{"core fetches nothing for a bot: bots have no network, put what this one needs into its bundle", []string{"get_http_response", "get_app_version"}},
		{"nobody is there between two messages: send status updates instead",
			[]string{"send_webxdc_realtime_data", "send_webxdc_realtime_advertisement", "leave_webxdc_realtime", "set_webxdc_integration", "init_webxdc_integration"}},
		{"a bot takes no calls: send a voice message, which is a file", []string{"place_outgoing_call", "accept_incoming_call", "end_call", "call_info", "ice_servers"}},
		{"a bot has no location, and sees nobody's: ask the user in the chat",
			[]string{"set_location", "get_locations", "send_locations_to_chat", "is_sending_locations", "is_sending_locations_to_chat", "stop_sending_locations"}},
	} {
		for _, m := range refusal.methods {
			rows = append(rows, row{method: m, reason: refusal.reason})
		}
	}
	return rows
}
