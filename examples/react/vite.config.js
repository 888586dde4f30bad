import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// `make run` listens there; a deployed stack's URL does as well.
const proxy = { '/api': { target: process.env.TAILRACE_URL ?? 'http://127.0.0.1:8787', changeOrigin: true } };

export default defineConfig({ plugins: [react()], server: { proxy }, preview: { proxy } });
