// What npm's openai client gets, as JSON.
// Arguments: the folder it is installed in, the demo's URL, the URL of a model that calls tools.
const { createRequire } = require("node:module");

const [folder, url, toolsUrl] = process.argv.slice(2);
const { OpenAI } = createRequire(`${folder}/`)("openai");

const messages = [{ role: "user", content: "Tell me a story about a fox." }];
const greedy = { model: "demo", messages, max_tokens: 12, temperature: 0 };
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      parameters: {
        type: "object",
        properties: { city: { enum: ["Paris", "Oslo"] } },
        required: ["city"],
        additionalProperties: false,
      },
    },
  },
];
const schema = {
  type: "object",
  properties: { name: { enum: ["Rex", "Mia"] }, age: { type: "integer", minimum: 1, maximum: 9 } },
  required: ["name", "age"],
  additionalProperties: false,
};

const called = (call) => ({ name: call.function.name, arguments: JSON.parse(call.function.arguments) });

async function refused(promise) {
  try {
    await promise;
    return {};
  } catch (error) {
    return { class: error.constructor.name, status: error.status, type: error.type, code: error.code };
  }
}

async function main() {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const other = new OpenAI({ baseURL: `${toolsUrl}/v1`, apiKey: "none", maxRetries: 0 });
  const answer = await client.chat.completions.create(greedy);
  let text = "";
  let usage = null;
  const stream = await client.chat.completions.create({ ...greedy, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  const longer = { ...greedy, max_tokens: 300 };
  const forced = await client.chat.completions.create({ ...longer, tools, tool_choice: "required", parallel_tool_calls: false });
  const made = await client.chat.completions.create({
    ...longer,
    response_format: { type: "json_schema", json_schema: { name: "pet", schema } },
  });
  const free = { model: "parrot", messages, tools };
  const wholeCall = (await other.chat.completions.create(free)).choices[0];
  const streamedCall = (await other.chat.completions.stream(free).finalChatCompletion()).choices[0];
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  console.log(
    JSON.stringify({
      models,
      chat: answer.choices[0].message.content,
      stream: text,
      usage: [answer.usage.total_tokens, usage.total_tokens],
      forced_call: called(forced.choices[0].message.tool_calls[0]),
      free_call: called(wholeCall.message.tool_calls[0]),
      streamed_call: called(streamedCall.message.tool_calls[0]),
      finish_reasons: [wholeCall.finish_reason, streamedCall.finish_reason],
      object: JSON.parse(made.choices[0].message.content),
      unknown_model: await refused(client.chat.completions.create({ ...greedy, model: "gpt-4" })),
      bad_value: await refused(client.chat.completions.create({ ...greedy, temperature: -1 })),
    }),
  );
}

main();
