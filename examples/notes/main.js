const most = 200

const help = `I keep notes for this chat:
/add buy milk – keeps a note
/list – shows all
/done 2 – removes the second`

export default {
  async message(msg, env) {
    const [, command, rest] = /^\/?(\w+)\s*(.*)$/s.exec(msg.text.trim()) ?? []
    const key = `chat/${msg.chat.id}`
    const notes = JSON.parse((await env.storage.get(key)) ?? '[]')
    const save = () => env.storage.put(key, JSON.stringify(notes))
    switch (command?.toLowerCase()) {
      case 'add':
        return add(notes, rest.trim(), save)
      case 'done':
        return done(notes, Number(rest), save)
      case 'list':
        return list(notes)
      default:
        return help
    }
  },
}

async function add(notes, note, save) {
  if (note === '') return 'What shall I note? Write /add and then the note.'
  if (notes.length >= most) return `There are ${most} notes already. Remove one with /done.`
  notes.push(note.slice(0, 1000))
  await save()
  return `Noted as number ${notes.length}.`
}

async function done(notes, number, save) {
  if (!Number.isInteger(number) || number < 1 || number > notes.length) return `There is no such note. ${list(notes)}`
  const [note] = notes.splice(number - 1, 1)
  await save()
  return `Removed: ${note}`
}

function list(notes) {
  if (notes.length === 0) return 'There are no notes yet. Write /add and then the note.'
  return notes.map((note, i) => `${i + 1}. ${note}`).join('\n')
}
