// `useChat` without React: the SDK's own chat over its default transport, cut, resumed and stopped.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { headers, model, read, reasoner, rootUrl, until } from './target.mjs'

const WEATHER = {
  type: 'function',
  name: 'get_weather',
  description: 'The weather in a city',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
}
const COUNTED = Array.from({ length: 30 }, (_, i) => i + 1).join(', ')

/** Of one major version of `ai`. */
export function testUiStream(ai) {
  /** What a framework's binding adds to the SDK's chat: where messages are kept. */
  class Chat extends ai.AbstractChat {
    constructor({ messages = [], ...init }) {
      const state = {
        status: 'ready',
        error: undefined,
        messages,
        pushMessage: (message) => (state.messages = state.messages.concat(message)),
        popMessage: () => (state.messages = state.messages.slice(0, -1)),
        replaceMessage: (index, message) =>
          (state.messages = state.messages.map((old, place) => (place === index ? message : old))),
        snapshot: (value) => structuredClone(value),
      }
      super({ ...init, state })
    }
  }

  function transport({ fetch, body = {} } = {}) {
    return new ai.DefaultChatTransport({ api: `${rootUrl}/api/chat`, headers, body: { model, ...body }, fetch })
  }

  /** A connection that breaks after so many bytes of its first answer. */
  function cutAfter(bytes) {
    let isWhole = false
    return async (url, options) => {
      const answer = await fetch(url, options)
      if (isWhole) return answer
      isWhole = true
      const reader = answer.body.getReader()
      let left = bytes
      const body = new ReadableStream({
        async pull(controller) {
          const { value } = await reader.read()
          if (value.length < left) {
            left -= value.length
            return controller.enqueue(value)
          }
          controller.enqueue(value.slice(0, left))
          await reader.cancel()
          controller.error(new TypeError('network connection lost'))
        },
      })
      return new Response(body, answer)
    }
  }

  const textOf = (chat) => chat.lastMessage.parts.map((part) => (part.type === 'text' ? part.text : '')).join('')
  const ask = (text) => [{ id: 'u1', role: 'user', parts: [{ type: 'text', text }] }]
  const stop = (id, activeStreamId) =>
    fetch(`${rootUrl}/api/chat/${encodeURIComponent(id)}/stop`, {
      method: 'POST',
      headers,
      body: JSON.stringify({ activeStreamId }),
    })

  test('a chat of several turns', async () => {
    const chat = new Chat({ transport: transport() })
    await chat.sendMessage({ text: 'Count from 1 to 30.' })
    assert.deepEqual([chat.status, chat.lastMessage.role, textOf(chat)], ['ready', 'assistant', COUNTED])
    await chat.sendMessage({ text: 'Thanks.' })
    assert.equal(textOf(chat), 'You said: Thanks.')
    await chat.regenerate()
    assert.deepEqual(chat.messages.map((message) => message.role), ['user', 'assistant', 'user', 'assistant'])
    assert.equal(textOf(chat), 'You said: Thanks.')
  })

  test('reasoning comes as a part of its own', async () => {
    const chat = new Chat({ transport: transport({ body: { model: reasoner } }) })
    await chat.sendMessage({ text: 'Count from 1 to 2.' })
    const parts = chat.lastMessage.parts.filter((part) => part.type !== 'step-start')
    assert.deepEqual(parts.map((part) => [part.type, part.text]), [['reasoning', 'Let me see.'], ['text', '1, 2']])
  })

  for (const bytes of [400, 777, 1500]) {
    test(`a connection that is cut after ${bytes} bytes is resumed without a hole or a repeat`, async () => {
      let finish
      const chat = new Chat({ transport: transport({ fetch: cutAfter(bytes) }), onFinish: (event) => (finish = event) })
      await chat.sendMessage({ text: 'Count slowly from 1 to 30.' })
      assert.deepEqual([chat.status, finish.isDisconnect], ['error', true])
      const seen = chat.lastMessage.role === 'assistant' ? textOf(chat) : ''
      assert.ok(COUNTED.startsWith(seen) && seen !== COUNTED)
      await chat.resumeStream()
      assert.deepEqual([chat.status, textOf(chat), chat.messages.length], ['ready', COUNTED, 2])
    })
  }

  test('a page that is loaded again has the answer from its first word, and then its end', async () => {
    const messages = ask('Count slowly from 1 to 30.')
    const id = `chat/${crypto.randomUUID()}`
    const sent = await transport().sendMessages({ chatId: id, messages, trigger: 'submit-message' })
    const reader = sent.getReader()
    for (let chunk = 0; chunk < 8; chunk++) await reader.read()
    await reader.cancel()
    const chat = new Chat({ id, messages, transport: transport() })
    await chat.resumeStream()
    assert.deepEqual([chat.status, textOf(chat), chat.messages.length], ['ready', COUNTED, 2])
  })

  test('where nothing runs there is nothing to resume', async () => {
    assert.equal(await transport().reconnectToStream({ chatId: 'nothing' }), null)
    const chat = new Chat({ transport: transport() })
    await chat.sendMessage({ text: 'Hello' })
    assert.equal(await transport().reconnectToStream({ chatId: chat.id }), null)
  })

  test('a stop ends what runs, for every viewer, and a late one nothing newer', async () => {
    const chat = new Chat({ transport: transport() })
    const sending = chat.sendMessage({ text: 'Count slowly from 1 to 500.' })
    await until(() => chat.lastMessage?.role === 'assistant' && textOf(chat).length > 5, 'the first words')
    const other = new Chat({ id: chat.id, messages: chat.messages.slice(0, 1), transport: transport() })
    const resuming = other.resumeStream()
    await until(() => other.lastMessage?.role === 'assistant' && textOf(other).length > 5, 'the first words')
    assert.equal((await stop(chat.id, 'resp_of-another')).status, 204)
    const { id } = chat.lastMessage
    assert.equal((await stop(chat.id, id)).status, 200)
    await Promise.all([sending, resuming])
    assert.deepEqual([chat.status, other.status], ['ready', 'ready'])
    assert.equal(textOf(chat), textOf(other))
    assert.equal((await read(`/v1/responses/${id}`)).status, 'cancelled')
    assert.equal((await stop(chat.id, id)).status, 204)
    assert.equal(await transport().reconnectToStream({ chatId: chat.id }), null)
  })

  test('a tool of the page is called and the answer goes on in the same message', async () => {
    const chat = new Chat({
      transport: transport({ body: { tools: [WEATHER] } }),
      sendAutomaticallyWhen: ai.lastAssistantMessageIsCompleteWithToolCalls,
      onToolCall: ({ toolCall }) => {
        const output = `sunny in ${toolCall.input.city}`
        chat.addToolOutput({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output })
      },
    })
    await chat.sendMessage({ text: "What is the weather in 'Oslo'?" })
    await until(() => chat.status === 'ready' && textOf(chat), 'the answer')
    assert.equal(textOf(chat), 'The tools say: sunny in Oslo')
    const [call] = chat.lastMessage.parts.filter((part) => ai.isToolUIPart(part))
    assert.deepEqual([call.state, call.input, call.output], ['output-available', { city: 'Oslo' }, 'sunny in Oslo'])
    assert.equal(chat.messages.length, 2)
  })

  test('an error is shown to the page', async () => {
    const chat = new Chat({ transport: transport({ body: { model: 'nothing' } }) })
    await chat.sendMessage({ text: 'Hello' })
    assert.equal(chat.status, 'error')
    assert.match(chat.error.message, /'nothing' does not exist/)
  })
}
