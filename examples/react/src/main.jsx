import { createRoot } from 'react-dom/client';
import { Chat } from './Chat.jsx';
import './style.css';

// The chat's id stays in the address, so a reload, or another device with the same address, opens the same chat.
const id = location.hash.slice(1) || crypto.randomUUID();
history.replaceState(null, '', `#${id}`);

const response = await fetch(`/api/chat/${id}/messages`);
const { messages } = response.ok ? await response.json() : { messages: [] };

createRoot(document.getElementById('root')).render(<Chat id={id} messages={messages} />);
