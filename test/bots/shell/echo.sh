#!/bin/sh
# JSON-RPC by hand: a FIFO each way, and texts that need no unquoting.
mkfifo /tmp/requests /tmp/answers
deltachat-rpc-server </tmp/requests >/tmp/answers &
exec 3>/tmp/requests 4</tmp/answers

call() {
	printf '{"jsonrpc":"2.0","id":1,"method":"%s","params":[%s]}\n' "$1" "$2" >&3
	read -r answer <&4
}

call get_all_account_ids
account=${answer##*[}
account=${account%%]*}
call start_io "$account"
while call get_next_event; do
	case "$answer" in
	*IncomingMsg*)
		msg=$(printf %s "$answer" | sed 's/.*"msgId":\([0-9]*\).*/\1/')
		chat=$(printf %s "$answer" | sed 's/.*"chatId":\([0-9]*\).*/\1/')
		call get_message "$account, $msg"
		text=$(printf %s "$answer" | sed 's/.*"text":"\([^"]*\)".*/\1/')
		call misc_send_text_message "$account, $chat, \"$text\""
		call markseen_msgs "$account, [$msg]"
		;;
	esac
done
