const eventSource = new EventSource(`/api/conversations/${conversationId}/stream`);
const messageDiv = document.getElementById('ai-response');

eventSource.onmessage = (event) => {
    const data = JSON.parse(event.data);
    
    if (data.chunk) {
        // Append chunk to display
        messageDiv.textContent += data.chunk;
    } else if (data.done) {
        // Stream completed
        eventSource.close();
        console.log('Complete message:', data.message);
    } else if (data.error) {
        // Handle error
        eventSource.close();
        console.error('Stream error:', data.message);
    }
};
