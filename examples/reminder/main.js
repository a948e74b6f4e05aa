const hour = 3600e3
const most = 100 // of a chat
const atOnce = 50 // messages that one run may send

const help = `I remind this chat, at the next full hour:
/remind 3h water the plants – in hours, or 2d in days
/remind 2026-12-24 buy a tree – on a day, at 8:00 UTC
/list – shows what is to come
/forget 2 – takes the second back`

export default {
  async message(msg, env) {
    const [, command, rest] = /^\/?(\w+)\s*(.*)$/s.exec(msg.text.trim()) ?? []
    switch (command?.toLowerCase()) {
      case 'remind':
        return remind(msg.chat.id, rest, env.storage)
      case 'forget':
        return forget(msg.chat.id, Number(rest), env.storage)
      case 'list':
        return list(await reminders(env.storage, msg.chat.id))
      default:
        return help
    }
  },

  async scheduled(event, env) {
    const due = (await reminders(env.storage)).filter((r) => r.when <= Date.now())
    for (const reminder of due.slice(0, atOnce)) {
      try {
        await env.send(reminder.chat, `⏰ ${reminder.text}`)
      } catch (error) {
        console.warn(`chat ${reminder.chat}:`, error.message) // it has stopped this bot, or is gone
      }
      await env.storage.delete(reminder.key)
    }
  },
}

// A reminder is a value whose key says when and where: due/TIME/CHAT/NUMBER, so that keys are in the order of time.
async function reminders(storage, chat) {
  const all = []
  for (const key of await storage.list('due/')) {
    const [, when, where] = key.split('/')
    if (chat === undefined || Number(where) === chat) {
      all.push({ key, when: Date.parse(when), chat: Number(where), text: await storage.get(key) })
    }
  }
  return all
}

async function remind(chat, rest, storage) {
  const [, when, text] = /^(\S+)\s+(.+)$/s.exec(rest.trim()) ?? []
  const at = timeOf(when)
  if (at === undefined) return `When shall I remind you of what?\n${help}`
  if (!(at > Date.now() && at < Date.now() + 3650 * 24 * hour)) return 'That is not in the next ten years.'
  const others = await reminders(storage, chat)
  if (others.length >= most) return `There are ${most} reminders already. Take one back with /forget.`
  await storage.put(`due/${new Date(at).toISOString()}/${chat}/${crypto.randomUUID()}`, text.slice(0, 1000))
  return `I shall remind you at the first full hour after ${format(at)}.`
}

function timeOf(when) {
  const [, number, unit] = /^(\d{1,5})([hd])$/.exec(when ?? '') ?? []
  if (unit) return Date.now() + Number(number) * (unit === 'h' ? hour : 24 * hour)
  if (!/^\d{4}-\d\d-\d\d$/.test(when ?? '')) return undefined
  const day = Date.parse(`${when}T07:59:00Z`)
  return Number.isNaN(day) ? undefined : day
}

async function forget(chat, number, storage) {
  const all = await reminders(storage, chat)
  const chosen = all[number - 1]
  if (chosen === undefined) return `There is no such reminder. ${list(all)}`
  await storage.delete(chosen.key)
  return `Forgotten: ${chosen.text}`
}

function list(all) {
  if (all.length === 0) return 'There is nothing to come.'
  return all.map((r, i) => `${i + 1}. ${format(r.when)}: ${r.text}`).join('\n')
}

const format = (time) => `${new Date(time).toISOString().slice(0, 16).replace('T', ' ')} UTC`
