/** The texts of the panels in the language of the interface: English in the code, Chinese from the table below. */

import { app } from "../../scripts/app.js";

const CHINESE = {
  // chips
  "Words of the prompt": "提示词里的词",
  subject: "主体",
  scene: "场景",
  "not used": "不使用",
  "left out": "略去",
  "Click to leave it out.": "点击：不使用它。",
  "Click to make it a subject.": "点击：设为主体。",
  "Click to make it the scene.": "点击：设为场景。",
  "Not the main subject, so it was left out. Click to take it in.": "不是主要主体，因此略去。点击：设为主体。",
  "The override comes from another node.": "“指定”来自另一个节点。",
  "Run once, then choose the words here.": "先运行一次，再在这里选词。",
  "The prompt has changed: run to see its words.": "提示词已改变：运行后显示它的词。",
  "● subject  ▲ scene; the override comes from another node": "● 主体  ▲ 场景；“指定”来自另一个节点",
  "● subject  ▲ scene; click a word to change its role": "● 主体  ▲ 场景；点击词可改变角色",
  "● subject  ▲ scene  ○ left out; click a word to change its role": "● 主体  ▲ 场景  ○ 略去；点击词可改变角色",
  "Not in this prompt, left out: {words}.": "这段提示词里没有，已略去：{words}。",
  "Clear them": "清除",
  "Chinese words are found only where the override names them. To have them found, install jieba into ComfyUI's Python.":
    "中文词只有写在“指定”里才会使用。要自动找词，请在 ComfyUI 的 Python 里安装 jieba。",
  "Japanese words are found only where the override names them. To have them found, install janome into ComfyUI's Python.":
    "日文词只有写在“指定”里才会使用。要自动找词，请在 ComfyUI 的 Python 里安装 janome。",
  "Words of this script are found only where the override names them.": "这种文字的词只有写在“指定”里才会使用。",
  // guide
  "Guide: Explainable Latents": "指南：可解释 Latent",
  Close: "关闭",
  // inspector
  "Run to inspect the maps here.": "运行后在这里查看热图。",
  "The maps of the last run are gone: run again.": "上次运行的热图已不在：请重新运行。",
  "The maps cannot be read: run again.": "无法读取热图：请重新运行。",
  "Place in the picture; arrow keys move it, with Shift by four cells": "画面中的位置；方向键移动一格，按住 Shift 移动四格",
  "Words, the strongest first": "词，最强的在前",
  "Save PNG": "保存 PNG",
  step: "步",
  picture: "图",
  opacity: "不透明度",
  "step {n}": "第 {n} 步",
  "all steps": "所有步",
  "picture {n} of {all}": "第 {n} 张，共 {all} 张",
  "opacity {n} %": "不透明度 {n} %",
  "column {column}, row {row}: {words} (1 = the map's mean)": "第 {column} 列，第 {row} 行：{words}（1 = 该图的平均值）",
};

/** Whether the interface is in the one language that the pack has beside English. */
export const isChinese = () => app.ui.settings.getSettingValue("Comfy.Locale") === "zh";

/** The text in the language of the interface, with {names} replaced by `values`. */
export function translated(text, values = {}) {
  const found = isChinese() ? (CHINESE[text] ?? text) : text;
  return found.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
