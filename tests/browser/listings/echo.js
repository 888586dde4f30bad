// Listen for chunks
Echo.channel(`conversation.${conversationId}`)
    .listen('MessageChunkReceived', (e) => {
        appendToMessage(e.chunk);
    })
    .listen('MessageCompleted', (e) => {
        onMessageComplete(e.message);
    });
