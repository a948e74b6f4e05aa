-- Stands where a chatmail relay has its own push script, so that Mayfly's is tried as the second driver.
function dovecot_lua_notify_begin_txn(user)
  return user
end

function dovecot_lua_notify_event_message_new(user, event)
  local mailbox = user:mailbox(event.mailbox)
  mailbox:sync()
  mailbox:free()
end

function dovecot_lua_notify_end_txn(ctx, success)
end
