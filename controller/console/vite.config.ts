import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// `npm run dev` serves the console with hot reload and passes the API on to a local controller.
export default defineConfig({
  plugins: [react()],
  build: { sourcemap: false, target: "es2022", assetsInlineLimit: 0 },
  server: { proxy: { "/api": "http://127.0.0.1:7444", "/health": "http://127.0.0.1:7444" } },
  test: { environment: "jsdom", include: ["src/**/*.test.ts", "src/**/*.test.tsx"] },
});
