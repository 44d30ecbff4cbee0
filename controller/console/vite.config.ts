import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const controller = { target: "http://127.0.0.1:7444", changeOrigin: false };

// `npm run dev` serves the console with hot reload and passes the API on to a local controller.
export default defineConfig({
  plugins: [react()],
  build: { sourcemap: false, target: "es2022", assetsInlineLimit: 0 },
  // The controller takes writes only from the host it is asked at: the proxy has to leave that name alone.
  server: { proxy: { "/api": controller, "/health": controller } },
  test: { environment: "jsdom", include: ["src/**/*.test.ts", "src/**/*.test.tsx"] },
});
