// A server with everything that the official conformance suite asks of one, made with the official
// SDK: what the suite says of it directly, it has to say of it behind the gateway.
//
// usage: node conformance-server.mjs [PORT]   prints its address when it is ready

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import * as types from '@modelcontextprotocol/sdk/types.js';

const PNG =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==';
const WAV = 'UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA==';

const text = (value) => ({ type: 'text', text: value });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };
const answer = (...content) => ({ content });
const one = (type, properties) => ({ type: 'object', properties: properties ?? {}, ...type });
const named = (words) => words.map(([value, title]) => ({ const: value, title }));
const elicited = ({ action, content }) =>
  answer(text(`Elicitation completed: action=${action}, content=${JSON.stringify(content ?? {})}`));

const elicit = (context, message, properties, required) =>
  context.extra.sendRequest(
    {
      method: 'elicitation/create',
      params: { message, requestedSchema: { type: 'object', properties, required } },
    },
    types.ElicitResultSchema,
  );

const TOOLS = {
  test_simple_text: {
    call: () => answer(text('This is a simple text response for testing.')),
  },
  test_image_content: { call: () => answer(image) },
  test_audio_content: {
    call: () => answer({ type: 'audio', data: WAV, mimeType: 'audio/wav' }),
  },
  test_embedded_resource: {
    call: () =>
      answer({
        type: 'resource',
        resource: {
          uri: 'test://embedded-resource',
          mimeType: 'text/plain',
          text: 'This is an embedded resource content.',
        },
      }),
  },
  test_multiple_content_types: {
    call: () =>
      answer(text('Multiple content types test:'), image, {
        type: 'resource',
        resource: {
          uri: 'test://mixed-content-resource',
          mimeType: 'application/json',
          text: JSON.stringify({ test: 'data', value: 123 }),
        },
      }),
  },
  test_tool_with_logging: {
    async call(context) {
      for (const data of [
        'Tool execution started',
        'Tool processing data',
        'Tool execution completed',
      ]) {
        await context.log('info', data);
        await sleep(50);
      }
      return answer(text('Three messages are logged.'));
    },
  },
  test_tool_with_progress: {
    async call({ extra }) {
      const progressToken = extra._meta?.progressToken;
      for (const progress of [0, 50, 100]) {
        if (progressToken !== undefined) {
          const params = { progressToken, progress, total: 100 };
          await extra.sendNotification({ method: 'notifications/progress', params });
        }
        await sleep(50);
      }
      return answer(text('All of it is done.'));
    },
  },
  test_error_handling: {
    call: () => ({
      isError: true,
      ...answer(text('This tool intentionally returns an error for testing')),
    }),
  },
  test_sampling: {
    inputSchema: one({ required: ['prompt'] }, { prompt: { type: 'string' } }),
    async call({ arguments: { prompt }, extra }) {
      const messages = [{ role: 'user', content: text(prompt) }];
      const sampled = await extra.sendRequest(
        { method: 'sampling/createMessage', params: { messages, maxTokens: 100 } },
        types.CreateMessageResultSchema,
      );
      return answer(text(`LLM response: ${sampled.content.text}`));
    },
  },
  test_elicitation: {
    inputSchema: one({ required: ['message'] }, { message: { type: 'string' } }),
    async call(context) {
      const string = (description) => ({ type: 'string', description });
      const properties = { username: string('A name'), email: string('An address') };
      const required = ['username', 'email'];
      const { action, content } = await elicit(
        context,
        context.arguments.message,
        properties,
        required,
      );
      return answer(text(`User response: ${JSON.stringify({ action, content })}`));
    },
  },
  test_elicitation_sep1034_defaults: {
    call: async (context) =>
      elicited(
        await elicit(context, 'Look at the defaults.', {
          name: { type: 'string', default: 'John Doe' },
          age: { type: 'integer', default: 30 },
          score: { type: 'number', default: 95.5 },
          status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
          verified: { type: 'boolean', default: true },
        }),
      ),
  },
  test_elicitation_sep1330_enums: {
    call: async (context) => {
      const options = ['option1', 'option2', 'option3'];
      const values = (word) =>
        named([
          ['value1', `First ${word}`],
          ['value2', `Second ${word}`],
          ['value3', `Third ${word}`],
        ]);
      return elicited(
        await elicit(context, 'Choose.', {
          untitledSingle: { type: 'string', enum: options },
          titledSingle: { type: 'string', oneOf: values('Option') },
          legacyEnum: {
            type: 'string',
            enum: ['opt1', 'opt2', 'opt3'],
            enumNames: ['Option One', 'Option Two', 'Option Three'],
          },
          untitledMulti: { type: 'array', items: { type: 'string', enum: options } },
          titledMulti: { type: 'array', items: { anyOf: values('Choice') } },
        }),
      );
    },
  },
  json_schema_2020_12_tool: {
    description: 'Tool with JSON Schema 2020-12 features',
    inputSchema: {
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      type: 'object',
      $defs: {
        address: one({}, { street: { type: 'string' }, city: { type: 'string' } }),
      },
      properties: { name: { type: 'string' }, address: { $ref: '#/$defs/address' } },
      additionalProperties: false,
    },
    call: ({ arguments: given }) => answer(text(JSON.stringify(given))),
  },
  test_reconnection: {
    async call({ extra }) {
      await sleep(50);
      extra.closeSSEStream?.();
      await sleep(100);
      return answer(text('The stream was closed, and here is the answer all the same.'));
    },
  },
};

const read = (uri, content) => ({ contents: [{ uri, ...content }] });
const RESOURCES = {
  'test://static-text': {
    mimeType: 'text/plain',
    text: 'This is the content of the static text resource.',
  },
  'test://static-binary': { mimeType: 'image/png', blob: PNG },
  'test://watched-resource': { mimeType: 'text/plain', text: 'Watch this.' },
};

const said = (...contents) => ({
  messages: contents.map((content) => ({ role: 'user', content })),
});
const PROMPTS = {
  test_simple_prompt: { get: () => said(text('This is a simple prompt for testing.')) },
  test_prompt_with_arguments: {
    arguments: ['arg1', 'arg2'],
    get: ({ arg1, arg2 }) => said(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)),
  },
  test_prompt_with_embedded_resource: {
    arguments: ['resourceUri'],
    get: ({ resourceUri: uri }) =>
      said(
        {
          type: 'resource',
          resource: { uri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' },
        },
        text('Please process the embedded resource above.'),
      ),
  },
  test_prompt_with_image: { get: () => said(image, text('Please analyze the image above.')) },
};

function server() {
  const server = new Server(
    { name: 'conformance-server', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
        prompts: { listChanged: true },
        completions: {},
        logging: {},
      },
    },
  );
  const gone = (what) => new types.McpError(types.ErrorCode.InvalidParams, `no such ${what}`);
  server.setRequestHandler(types.ListToolsRequestSchema, () => ({
    tools: Object.entries(TOOLS).map(([name, tool]) => ({
      name,
      description: tool.description ?? `Does what ${name} says.`,
      inputSchema: tool.inputSchema ?? one(),
    })),
  }));
  server.setRequestHandler(types.CallToolRequestSchema, ({ params }, extra) => {
    const tool = TOOLS[params.name];
    if (!tool) throw gone('tool');
    const log = (level, data) =>
      extra.sendNotification({ method: 'notifications/message', params: { level, data } });
    return tool.call({ arguments: params.arguments ?? {}, extra, log });
  });
  server.setRequestHandler(types.ListResourcesRequestSchema, () => ({
    resources: Object.entries(RESOURCES).map(([uri, { mimeType }]) => ({
      uri,
      name: uri.slice('test://'.length),
      description: `What is at ${uri}`,
      mimeType,
    })),
  }));
  server.setRequestHandler(types.ListResourceTemplatesRequestSchema, () => ({
    resourceTemplates: [
      { uriTemplate: 'test://template/{id}/data', name: 'data', mimeType: 'application/json' },
    ],
  }));
  server.setRequestHandler(types.ReadResourceRequestSchema, ({ params: { uri } }) => {
    const id = /^test:\/\/template\/([^/]+)\/data$/.exec(uri)?.[1];
    if (id !== undefined) {
      const data = { id, templateTest: true, data: `Data for ID: ${id}` };
      return read(uri, { mimeType: 'application/json', text: JSON.stringify(data) });
    }
    if (!RESOURCES[uri]) throw gone('resource');
    return read(uri, RESOURCES[uri]);
  });
  server.setRequestHandler(types.SubscribeRequestSchema, () => ({}));
  server.setRequestHandler(types.UnsubscribeRequestSchema, () => ({}));
  server.setRequestHandler(types.ListPromptsRequestSchema, () => ({
    prompts: Object.entries(PROMPTS).map(([name, prompt]) => ({
      name,
      description: `The prompt ${name}`,
      arguments: (prompt.arguments ?? []).map((name) => ({
        name,
        description: name,
        required: true,
      })),
    })),
  }));
  server.setRequestHandler(types.GetPromptRequestSchema, ({ params }) => {
    const prompt = PROMPTS[params.name];
    if (!prompt) throw gone('prompt');
    return prompt.get(params.arguments ?? {});
  });
  server.setRequestHandler(types.CompleteRequestSchema, () => ({
    completion: { values: ['test'], total: 1, hasMore: false },
  }));
  server.setRequestHandler(types.SetLevelRequestSchema, () => ({}));
  return server;
}

/** Keeps what was sent, for a client whose stream was closed. */
class Events {
  #events = [];

  async storeEvent(stream, message) {
    this.#events.push({ stream, message });
    return `${this.#events.length - 1}`;
  }

  async getStreamIdForEventId(id) {
    return this.#events[Number(id)]?.stream;
  }

  async replayEventsAfter(id, { send }) {
    const stream = this.#events[Number(id)]?.stream ?? '';
    for (const [at, event] of this.#events.entries()) {
      const shown = event.stream === stream && Object.keys(event.message).length > 0;
      if (at > Number(id) && shown) await send(`${at}`, event.message);
    }
    return stream;
  }
}

const sessions = new Map();
const listener = createServer(async (request, response) => {
  try {
    const { port } = listener.address();
    const hosts = ['127.0.0.1', 'localhost', '[::1]'].map((host) => `${host}:${port}`);
    let transport = sessions.get(request.headers['mcp-session-id']);
    if (!transport) {
      transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        eventStore: new Events(),
        retryInterval: 500,
        enableDnsRebindingProtection: true,
        allowedHosts: hosts,
        allowedOrigins: hosts.map((host) => `http://${host}`),
        onsessioninitialized: (id) => sessions.set(id, transport),
        onsessionclosed: (id) => sessions.delete(id),
      });
      await server().connect(transport);
    }
    await transport.handleRequest(request, response);
  } catch (error) {
    console.error(error);
    if (!response.headersSent) response.writeHead(500).end();
  }
});
listener.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${listener.address().port}/mcp`);
});
