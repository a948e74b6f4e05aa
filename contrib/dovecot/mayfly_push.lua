-- mayfly_push.lua: a Dovecot push-notification script that tells Mayfly at once of new mail in an INBOX and of changes of a Bot
-- folder. It writes one datagram to a unix socket and waits for nothing: where Mayfly does not run, does not read, or has a full
-- queue, the datagram is dropped and the delivery goes on as without it. Mayfly's slow poll finds what was not told.
--
-- Needs: Dovecot 2.3.4 or later with mail_lua and push_notification_lua (in Debian's dovecot-core), and Debian's lua-socket.
-- Without lua-socket it says so in Dovecot's log, at each delivery, and does nothing. Tried with Dovecot 2.3.19 (Debian 12) and 2.4.1
-- (Debian 13).
--
-- Set up, on a chatmail relay (Dovecot 2.3), in /etc/dovecot/dovecot.conf:
--
--   protocol lmtp {
--     # as the relay has it already
--     mail_plugins = $mail_plugins mail_lua notify push_notification push_notification_lua
--   }
--   protocol imap {
--     # add the last four to the relay's line: without them, changes of Bot folders are found by polling
--     mail_plugins = $mail_plugins imap_quota last_login mail_lua notify push_notification push_notification_lua
--     plugin {
--       # the relay's own script is for LMTP only
--       push_notification_driver = lua:file=/etc/dovecot/mayfly_push.lua
--       push_notification_driver2 =
--     }
--   }
--   plugin {
--     # the relay's own script stays in push_notification_driver; the names must count up without a gap: "", 2, 3
--     push_notification_driver2 = lua:file=/etc/dovecot/mayfly_push.lua
--     mayfly_socket = /run/mayfly/wake
--   }
--
-- The same with Dovecot 2.4:
--
--   mail_plugins {
--     mail_lua = yes
--     notify = yes
--     push_notification = yes
--     push_notification_lua = yes
--   }
--   push_notification mayfly {
--     driver = lua
--     lua_file = /etc/dovecot/mayfly_push.lua
--     lua_settings {
--       mayfly_socket = /run/mayfly/wake
--     }
--   }
--
-- The socket has mode 0660: its group must be the one that Dovecot's mail processes run with (mail_gid; on a relay: vmail).
--
-- What is written: version TAB account TAB mailbox TAB uid LF, as Mayfly's package internal/wake says in full.
--   INBOX                     when a message was delivered or appended, with its UID
--   Bot and folders below it  the same; and with UID 0 when one was removed or renamed
-- Bot/Status is left out: Mayfly writes it itself. There is no function for mailbox_create: Dovecot 2.3 calls every driver for the
-- events that one of them has a function for, and a relay's own script would log an error for each new account's INBOX. An
-- empty Bot folder means nothing anyway.

local path = "/run/mayfly/wake"
local found, unix = pcall(require, "socket.unix")
local complained = false

local function complain(what)
  if not complained then
    complained = true
    dovecot.i_error("mayfly_push.lua: " .. what)
  end
end

-- send connects first, which fails at once where there is no datagram socket. sendto must not be used: lua-socket repeats it for
-- ever on a stream socket.
local function send(line, to)
  if not found or unix.dgram == nil then
    complain("Mayfly is not woken: there is no socket.unix with datagrams for " .. _VERSION .. ": install lua-socket")
    return
  end
  local socket = assert(unix.dgram())
  socket:settimeout(0)
  if socket:setpeername(to) then
    socket:send(line) -- what it returns is of no use: a lost datagram is made up for by Mayfly's poll
  end
  socket:close()
end

-- wanted says whether Mayfly asks for changes of a mailbox. The delimiter is a dot or a slash.
local function wanted(mailbox)
  if mailbox:upper() == "INBOX" or mailbox == "Bot" then
    return true
  end
  return mailbox:find("^Bot[./]") ~= nil and mailbox:find("^Bot[./]Status$") == nil
end

-- note keeps, for the end of the transaction, the newest UID for each mailbox, in the order in which they changed.
local function note(ctx, mailbox, uid)
  if type(mailbox) ~= "string" or not wanted(mailbox) or mailbox:find("%c") then
    return
  end
  if ctx.uids[mailbox] == nil then
    table.insert(ctx.order, mailbox)
    ctx.uids[mailbox] = uid
  elseif uid > ctx.uids[mailbox] then
    ctx.uids[mailbox] = uid
  end
end

local function message(ctx, event)
  note(ctx, event.mailbox, event.uid or 0)
end

local function folder(ctx, event)
  note(ctx, event.mailbox, 0)
end

-- Dovecot 2.4 hands over lua_settings here.
function script_init(settings)
  if type(settings) == "table" and settings.mayfly_socket then
    path = settings.mayfly_socket
  end
  return 0
end

function dovecot_lua_notify_begin_txn(user)
  local ctx = {user = user.username, path = path, order = {}, uids = {}}
  if type(user.plugin_getenv) == "function" then -- Dovecot 2.3 has the socket's path in the plugin's settings
    ctx.path = user:plugin_getenv("mayfly_socket") or path
  end
  return ctx
end

dovecot_lua_notify_event_message_new = message
dovecot_lua_notify_event_message_append = message
dovecot_lua_notify_event_mailbox_delete = folder

function dovecot_lua_notify_event_mailbox_rename(ctx, event)
  folder(ctx, event)
  note(ctx, event.mailbox_old, 0)
end

function dovecot_lua_notify_end_txn(ctx, success)
  if not success then
    return
  end
  for _, mailbox in ipairs(ctx.order) do
    local line = string.format("1\t%s\t%s\t%.0f\n", ctx.user, mailbox, ctx.uids[mailbox])
    local sent, err = pcall(send, line, ctx.path)
    if not sent then
      complain("Mayfly is not woken: " .. tostring(err))
    end
  end
end
