import { useChat } from '@ai-sdk/react';
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } from 'ai';
import { useState } from 'react';

const transport = new DefaultChatTransport({ api: '/api/chat' });

/** A tool that runs in the page: what time it is here. */
const clock = {
    type: 'function',
    function: { name: 'local_time', description: "The time on the user's own clock.", parameters: { type: 'object' } },
};

export function Chat({ id, messages: initial }) {
    const [input, setInput] = useState('');
    const { messages, sendMessage, addToolOutput, regenerate, status, error } = useChat({
        id,
        messages: initial,
        transport,
        resume: true, // an answer that is being written goes on after a reload
        sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
        onToolCall({ toolCall }) {
            if (toolCall.toolName === 'local_time') {
                addToolOutput({
                    tool: toolCall.toolName,
                    toolCallId: toolCall.toolCallId,
                    output: { time: new Date().toLocaleTimeString() },
                });
            }
        },
    });
    const isBusy = status === 'submitted' || status === 'streaming';

    function submit(event) {
        event.preventDefault();
        sendMessage({ text: input }, { body: { options: { tools: [clock] } } });
        setInput('');
    }

    // In a set-up that resumes, useChat's own stop() only hangs up: the answer is stopped by the server.
    const stop = () => fetch(`/api/chat/${id}/stop`, { method: 'POST' });

    return (
        <main>
            <h1>A chat with useChat</h1>
            <ol aria-live="polite">
                {messages.map((message) => (
                    <li key={message.id} className={message.role}>
                        {message.parts.map((part, i) => <Part key={i} part={part} />)}
                    </li>
                ))}
            </ol>
            {error && (
                <p role="alert">
                    The answer failed. <button type="button" onClick={() => regenerate()}>Try again</button>
                </p>
            )}
            <form onSubmit={submit}>
                <input
                    aria-label="Your message"
                    value={input}
                    onChange={(event) => setInput(event.target.value)}
                    placeholder="Say something"
                />
                {isBusy
                    ? <button type="button" onClick={stop}>Stop</button>
                    : <button disabled={!input.trim()}>Send</button>}
            </form>
            <output>{status}</output>
        </main>
    );
}

function Part({ part }) {
    if (part.type === 'text') {
        return <p>{part.text}</p>;
    }
    if (part.type === 'reasoning') {
        return <details><summary>Thoughts</summary><p>{part.text}</p></details>;
    }
    if (part.type.startsWith('tool-') || part.type === 'dynamic-tool') {
        return <pre>{part.toolName ?? part.type.slice(5)}: {JSON.stringify(part.output ?? part.errorText ?? part.input)}</pre>;
    }
    return null;
}
